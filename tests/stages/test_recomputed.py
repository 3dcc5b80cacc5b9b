"""The numbers of a finished run, recomputed from its raw files by formulas written here alone, after docs/statistics.md."""

from __future__ import annotations

import json
from collections import Counter
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from evenhand.run_experiment import Run, execute, prepare
from tests.stages.test_over_training import GIVEN

ARMS = {"sft": {"method": "start"}, "dpo": {"method": "dpo"}, "ipo": {"method": "ipo"}}
ASKED = {
    **GIVEN, "arms": ARMS, "seeds": [0, 1], "evaluation": {"prompts": 8, "frontier": False},
    "data": {"world": "quickstart", "sizes": {"demonstrations": 40, "preferences": 24, "prompts": 12, "heldout_prompts": 8}},
    "reward_models": {"rm": {"train": {"steps": 2}}}, "train": {"steps": 4, "prompts_per_step": 4, "learning_rate": 0.003},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any]]:
    out = tmp_path_factory.mktemp("recomputed")
    prepared = prepare(ASKED, out=out)
    outcome, _ = execute(prepared, workers=0)
    assert outcome.ok, outcome.errors
    return prepared, json.loads((out / "results.json").read_text())


def raw(made: tuple[Run, dict[str, Any]], nodes: Any, arm: str, file: str) -> list[Any]:
    """A file of every seed of an arm, as it lies in the store."""
    prepared, _ = made
    paths = [prepared.store.path(prepared.plan[node].key) / file for node in nodes[arm].values()]
    return [_read(path) for path in paths]


def _read(path: Path) -> Any:
    return (
        [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else json.loads(path.read_text())
    )


def outcomes(made: tuple[Run, dict[str, Any]], arm: str) -> np.ndarray:
    return np.array([v["outcome"] for v in raw(made, made[0].plan.verdicts, arm, "verdicts.json")])


@pytest.mark.parametrize("arm", ["dpo", "ipo"])
def test_rates_scores_lengths_and_distances(made, arm):
    row = made[1]["arms"][arm]
    verdicts = raw(made, made[0].plan.verdicts, arm, "verdicts.json")
    measured = raw(made, made[0].plan.generations, arm, "measured.json")
    table = outcomes(made, arm)
    assert row["win_rate"] == pytest.approx(table.mean())
    assert row["per_seed"] == pytest.approx(table.mean(axis=1).tolist())
    assert row["ties"] == pytest.approx((table == 0.5).mean())
    assert row["gold"] == pytest.approx(np.mean([v["gold"] for v in verdicts]))
    for v in verdicts:  # the higher score wins
        gold, base = np.array(v["gold"]), np.array(v["baseline_gold"])
        assert v["outcome"] == np.where(np.abs(gold - base) <= 1e-9, 0.5, gold > base).tolist()
    assert row["kl"] == pytest.approx(np.mean([m["kl"] for m in measured]))
    assert row["mean_length"] == pytest.approx(np.mean([m["length"] for m in measured]))
    assert row["truncated"] == pytest.approx(np.mean([m["truncated"] for m in measured]))


def test_texts(made):
    for arm in ARMS:
        answers = [
            g["completions"][0]["content"] for seed in raw(made, made[0].plan.generations, arm, "generations.jsonl") for g in seed
        ]
        texts = [a if isinstance(a, str) else a[-1]["content"] for a in answers]
        row = made[1]["arms"][arm]
        assert row["mean_chars"] == pytest.approx(np.mean([len(t) for t in texts]))
        assert row["empty"] == pytest.approx(np.mean([not t.strip() for t in texts]))


def test_the_interval_between_two_arms_by_the_formula_of_the_manual(made):
    a, b = outcomes(made, "dpo"), outcomes(made, "ipo")
    (row,) = [c for c in made[1]["contrasts"] if {c["a"], c["b"]} == {"dpo", "ipo"}]
    d = (a - b) if row["a"] == "dpo" else (b - a)
    k, n = d.shape
    seeds, prompts = n * d.mean(axis=1).var(ddof=1), k * d.mean(axis=0).var(ddof=1)
    left = d - d.mean(axis=1, keepdims=True) - d.mean(axis=0, keepdims=True) + d.mean()
    residual = (left**2).sum() / ((k - 1) * (n - 1))
    values = np.unique(np.concatenate([a.ravel(), b.ravel()]))
    gap = np.diff(values).min() if len(values) > 1 else 0.0
    part_a = (sqrt(seeds / n) + gap / (n * sqrt(8))) ** 2 / k
    part_b = max(prompts - residual, 0.0) / (n * k)
    part_c = max(prompts / (n * k), 2 / (n + 2) ** 2)
    t = lambda df: scipy_stats.t.ppf(0.975, df)  # noqa: E731
    half = max(sqrt(t(k - 1) ** 2 * part_a + t(n - 1) ** 2 * part_b), t(n - 1) * sqrt(part_c))
    assert row["difference"] == pytest.approx(d.mean())
    assert row["ci95"] == pytest.approx([max(d.mean() - half, -1), min(d.mean() + half, 1)])
    assert row["per_seed"] == pytest.approx(d.mean(axis=1).tolist())


def test_holms_p_within_each_family(made):
    families: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for c in made[1]["contrasts"]:
        families["sft" in (c["a"], c["b"])].append(c)
    assert [len(rows) for rows in families.values()] == [2, 1]
    for rows in families.values():
        ordered, worst = sorted(rows, key=lambda c: c["p"]), 0.0
        for place, c in enumerate(ordered):
            worst = max(worst, min(1.0, (len(rows) - place) * c["p"]))
            assert c["p_holm"] == pytest.approx(worst)
            signs = Counter(np.sign(np.round(c["per_seed"], 9)).tolist())
            agree = signs[float(np.sign(c["difference"]))] == 2
            assert (c["verdict"] == "inconclusive") == (worst >= 0.05 or not agree)


def test_the_reward_models_accuracy_and_log_loss(made):
    """By the model's own scores, and not on the scale that policies are rewarded on."""
    prepared, results = made
    found = []
    for node in prepared.plan.reward_models["rm"].values():
        scores = json.loads((prepared.store.path(prepared.plan[node].key) / "scores.json").read_text())
        margin = np.array(scores["chosen"]) - np.array(scores["rejected"])
        found.append(((margin > 0).mean() + (margin == 0).mean() / 2, np.log1p(np.exp(-margin)).mean(), margin.mean()))
    accuracy, loss, mean = np.mean(found, axis=0)
    row = results["reward_models"]["rm"]
    assert (row["accuracy"], row["log_loss"], row["mean_margin"]) == pytest.approx((accuracy, loss, mean))


def test_what_was_spent(made):
    prepared, results = made
    for arm in ("dpo", "ipo"):
        ledgers = [
            json.loads((prepared.store.path(prepared.plan[node].key) / "ledger.json").read_text())
            for node in prepared.plan.arms[arm].values()
        ]
        for unit in ("tokens_trained", "tokens_generated", "reward_calls", "flops"):
            assert results["arms"][arm]["ledger"][unit] == pytest.approx(np.mean([entry[unit] for entry in ledgers]))
    assert results["n_prompts"] == 8
    assert "All answer the same 8 held-out prompts" in results["held_equal"][2]
