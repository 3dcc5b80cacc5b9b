"""Rows and contrasts of arms that lost a seed, or everything, and of arms that are one stage under two names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evenhand.errors import UserError
from evenhand.plan.plan import build
from evenhand.results.assemble import excluded
from evenhand.results.comparison import Fits, arm_results, beside_verdicts, differences, judged_together, power
from evenhand.results.looks import looks
from evenhand.results.record import ArmResult, Power
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.run_experiment import _show_model, shown, untrained
from evenhand.spec.read import read_experiment
from evenhand.store.pointer import POINTER
from evenhand.store.store import Store
from evenhand.types import Completion, Group, Prompt

TEXT = """
name: compared
seeds: [0, 1, 2]
data: {world: quickstart}
model: {pretrain: {documents: 10, train: {epochs: 1}}}
sft: {train: {steps: 1}}
train: {steps: 1}
arms:
  sft: {method: start}
  dpo: {method: dpo}
  twin: {method: dpo}
  d: {method: start, initial_policy: dpo}
  shared: {method: dpo, beta: 0.3, per_seed: false}
"""
PROMPTS = 60


class Fake(RunArtifacts):
    """Answers and ledgers without a store."""

    def generations(self, arm: str, seed: int) -> list[Group]:
        answer = Completion(content=f"a b c {arm}", tokens=(1, 2), behaviour_logp=(-0.5, -1.5))
        return [Group(prompt=Prompt(content=str(i)), completions=(answer,)) for i in range(PROMPTS)]

    def load(self, node: str, file: str) -> Any:
        return {"tokens_generated": 0, "tokens_trained": 7, "reward_calls": 0, "flops": 1.0}


def finished(rates: dict[str, dict[int, float]]) -> Fake:
    """Arm -> seed -> the share of prompts it wins; the others are lost."""
    rng = np.random.default_rng(0)
    plan = build(read_experiment(TEXT).value)
    verdicts: dict[str, dict[int, Any]] = {a: {} for a in plan.arms}
    measured: dict[str, dict[int, Any]] = {a: {} for a in plan.arms}
    for arm, seeds in rates.items():
        for seed, rate in seeds.items():
            outcome = [0.5] * PROMPTS if arm == "sft" else [float(i < rate * PROMPTS) for i in range(PROMPTS)]
            account = {"invalid": 0.0, "cost_usd": 0.25}
            verdicts[arm][seed] = {"outcome": outcome, "gold": [None] * PROMPTS, "account": account}
            chars = rng.integers(50, 90, PROMPTS).tolist()
            measured[arm][seed] = {"chars": chars, "length": chars, "truncated": [False] * PROMPTS, "kl": [0.0] * PROMPTS}
    return Fake(plan, Store(Path("nowhere")), verdicts, measured)


ALL = {0: 0.5, 1: 0.5, 2: 0.5}


def test_an_arm_that_lost_a_seed_costs_the_others_nothing() -> None:
    done = finished({"sft": ALL, "dpo": {0: 0.8, 1: 0.8, 2: 0.8}, "shared": {0: 0.6, 2: 0.9}})
    rows = arm_results(done, Fits())
    assert rows["dpo"].per_seed == pytest.approx((0.8, 0.8, 0.8))
    assert (rows["shared"].per_seed[0], rows["shared"].per_seed[1]) == (pytest.approx(0.6), None)
    assert rows["shared"].win_rate == pytest.approx(0.75)
    assert rows["shared"].seeds == (0, 2)
    assert rows["shared"].length_controlled is not None
    assert rows["dpo"].judge_cost_usd == 0.75
    assert rows["dpo"].entropy == pytest.approx(1.0)
    assert rows["dpo"].self_overlap == 1.0, "every seed says the same"
    by_pair = {(c.a, c.b): c for c in judged_together(differences(done, Fits()), "sft")[0]}
    assert by_pair["dpo", "shared"].seeds == (0, 2)
    assert by_pair["dpo", "shared"].difference == pytest.approx(0.05)
    assert by_pair["dpo", "sft"].seeds == (0, 1, 2)
    assert by_pair["dpo", "sft"].length_controlled.difference == pytest.approx(0.3, abs=0.02)


def test_declared_contrasts_do_not_pay_for_the_search_among_the_arms() -> None:
    """Holm over the two contrasts with the baseline, and over the third on its own."""
    done = finished({"sft": ALL, "dpo": {0: 0.55, 1: 0.5, 2: 0.56}, "shared": {0: 0.6, 1: 0.7, 2: 0.65}})
    rows = {(c.a, c.b): c for c in judged_together(differences(done, Fits()), "sft")[0]}
    small, large = sorted((rows["dpo", "sft"].p, rows["shared", "sft"].p))
    declared = sorted((rows["dpo", "sft"].p_holm, rows["shared", "sft"].p_holm))
    assert declared == pytest.approx([2 * small, max(2 * small, large)])
    assert rows["dpo", "shared"].p_holm == rows["dpo", "shared"].p


def test_the_interval_beside_a_verdict_goes_with_it() -> None:
    """Two contrasts with the baseline share the 5 %: their joint intervals are wider, and the arm's win rate has the same one."""
    done = finished({"sft": ALL, "dpo": {0: 0.65, 1: 0.62, 2: 0.64}, "shared": {0: 0.9, 1: 0.92, 2: 0.91}})
    pairs = differences(done, Fits())
    found = judged_together(pairs, "sft")[0]
    arms = beside_verdicts(arm_results(done, Fits()), found, "sft")
    for c in (c for c in found if c.b == "sft"):
        assert c.ci95 is not None
        assert c.joint is not None
        assert c.contrasts == 2
        assert c.joint[0] <= c.ci95[0] < c.ci95[1] <= c.joint[1]
        assert (c.verdict.value == "inconclusive") == (c.joint[0] <= 0 <= c.joint[1])
        assert arms[c.a].ci95 == pytest.approx((c.ci95[0] + 0.5, c.ci95[1] + 0.5))
        assert arms[c.a].ci95_simultaneous == pytest.approx((c.joint[0] + 0.5, c.joint[1] + 0.5))
        assert c.mirrored().joint == (-c.joint[1], -c.joint[0])
    assert {c.verdict.value for c in found} >= {"better"}
    assert {c.verdict.value for c in judged_together(pairs, "sft", alpha=1e-9)[0]} == {"inconclusive"}


def test_an_arm_at_equal_length_has_the_interval_of_its_contrast_and_says_its_scope() -> None:
    done, fits = finished({"sft": ALL, "dpo": {0: 0.8, 1: 0.7, 2: 0.9}}), Fits()
    (c,) = judged_together(differences(done, fits), "sft")[0]
    even, pair = arm_results(done, fits)["dpo"].length_controlled, c.length_controlled
    assert even is not None
    assert pair is not None
    assert even.ci95 is not None
    assert pair.ci95 is not None
    assert even.scope == pair.scope == "seeds and prompts"
    assert even.form == "lc_shrunk"
    assert even.ci95 == pytest.approx((pair.ci95[0] + 0.5, pair.ci95[1] + 0.5), abs=1e-9)


def test_looks_are_counted_in_the_run_directory(tmp_path: Path) -> None:
    plan = build(read_experiment(TEXT).value)
    first = looks(plan, tmp_path, 60)
    assert (first.designs, first.count, first.alpha, first.note) == (((3, 60),), 1, 0.05, "")
    (tmp_path / "results.json").write_text(json.dumps({"looks": {"designs": first.designs}}))
    assert looks(plan, tmp_path, 60) == first  # the same design again is no new look
    lost = looks(plan, tmp_path, 0)
    assert lost is not None
    assert lost.designs == ((3, 60),), "a run all of whose verdicts failed has shown nothing"
    assert looks(plan, tmp_path / "new", 0) is None
    second = looks(plan, tmp_path, 120)
    assert (second.designs, second.count) == (((3, 60), (3, 120)), 2)
    assert "looked at 2 times, planned 1" in second.note


def test_a_planned_study_spends_its_error_as_it_goes(tmp_path: Path) -> None:
    plan = build(read_experiment(TEXT + "evaluation: {planned: {seeds: 6, prompts: 60}}\n").value)
    first = looks(plan, tmp_path, 60)
    assert first.planned == (6, 60)
    assert first.alpha == pytest.approx(0.00557, abs=1e-4)  # 2 - 2 Phi(1.96 / sqrt(1/2))
    with pytest.raises(UserError, match=r"evaluation\.planned\.seeds"):
        read_experiment(TEXT + "evaluation: {planned: {seeds: 0, prompts: 60}}\n")


def test_an_arm_without_any_verdict_keeps_its_place_with_nothing_in_it() -> None:
    done = finished({"sft": ALL, "dpo": ALL})
    rows = arm_results(done, Fits())
    assert list(rows) == ["sft", "dpo", "twin", "d", "shared"]
    assert rows["shared"] == ArmResult(per_seed=(None,) * 3, method="dpo")
    assert [(e.arm, e.seeds, e.kept) for e in excluded(done)] == [(a, (0, 1, 2), ()) for a in ("twin", "d", "shared")]


def test_arms_without_a_seed_in_common_are_not_compared() -> None:
    done = finished({"sft": ALL, "dpo": {0: 0.8}, "shared": {2: 0.9}})
    assert {(c.a, c.b) for c in differences(done, Fits())} == {("dpo", "sft"), ("shared", "sft")}


def test_without_the_baseline_nothing_is_at_equal_length() -> None:
    done = finished({"dpo": {0: 0.8}, "twin": {0: 0.7}})
    assert arm_results(done, Fits())["dpo"].length_controlled is None


def test_the_resolution_of_a_run_is_told_from_its_contrasts() -> None:
    found = differences(finished({"sft": ALL, "dpo": {0: 0.8, 1: 0.7, 2: 0.9}, "shared": {0: 0.6, 1: 0.6, 2: 0.6}}), Fits())
    told = power(judged_together(found, "sft")[0])
    assert told.least <= told.median <= told.minimum_detectable_difference
    assert power([]) == Power()


def test_an_untrained_arm_shows_its_model_alone(tmp_path: Path) -> None:
    """Its own files are linked; a model from elsewhere, which may be large and on another disk, is pointed at."""
    made, elsewhere = tmp_path / "made", tmp_path / "elsewhere"
    for folder in (made / "model", elsewhere):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (made / "metrics.jsonl").write_text("")
    _show_model(made, tmp_path / "own")
    assert [p.name for p in (tmp_path / "own").rglob("*")] == ["model", "config.json"]
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / POINTER).write_text(json.dumps({"path": str(elsewhere)}))
    _show_model(tmp_path / "named", tmp_path / "other")
    assert (tmp_path / "other" / "model").resolve() == elsewhere
    assert untrained(build(read_experiment(TEXT).value))["arms/sft/seed-1"]


def test_two_names_of_one_stage_are_two_arms_with_their_own_files() -> None:
    """An arm is trained because its method trains, whatever its node is called; "d" is not "dpo"."""
    done = finished(dict.fromkeys(("sft", "dpo", "twin", "d", "shared"), ALL))
    assert done.plan.arms["twin"] == done.plan.arms["dpo"], "equal stages are one"
    assert {a: done.plan.trained(a) for a in done.plan.arms} == {
        "sft": False, "dpo": True, "twin": True, "d": False, "shared": True
    }  # fmt: skip
    rows = arm_results(done, Fits())
    assert rows["twin"].ledger == rows["dpo"].ledger != rows["d"].ledger
    places = shown(done.plan)
    assert places["arms/twin/seed-1"] == "arms/dpo/seed-1"
    assert places["arms/shared/seed-2"] == "arms/shared"
    assert places["generations/twin/seed-0"] == done.plan.generations["dpo"][0]
    assert not any(place.startswith(("arms/sft", "arms/d/")) for place in places)
