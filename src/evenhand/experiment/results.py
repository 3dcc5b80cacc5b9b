"""From finished artifacts to `results.json`: the comparison, with its intervals. Nothing here depends on the clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.data.jsonl import read_groups
from evenhand.experiment.fairness import deviations, held_equal
from evenhand.experiment.judged import at_equal_length, judge_card, mean_or_none
from evenhand.experiment.plan import Plan
from evenhand.experiment.reward_cards import best_of_n, length_leaning, on_pairs
from evenhand.experiment.store import Store
from evenhand.stats.planning import resolved_by
from evenhand.stats.reward_model import pair_metrics
from evenhand.stats.tests import holm, verdict
from evenhand.stats.text import distinct_n
from evenhand.stats.twoway import Difference, paired_difference, win_rate

SHOWN_PROMPTS = 60


def assemble(plan: Plan, store: Store, out: Path) -> dict[str, Any]:
    """The content of `results.json` from whatever has finished; an arm counts with the seeds that all finished arms share."""
    experiment = plan.experiment
    seeds = common_seeds(plan, store)
    arms = [n for n in plan.arms if any(store.has(plan[node].key) for node in plan.verdicts[n].values())]
    verdicts = {a: [load(plan, store, plan.verdicts[a][s], "verdicts.json") for s in seeds] for a in arms}
    measured = {a: [load(plan, store, plan.generations[a][s], "measured.json") for s in seeds] for a in arms}
    differences = contrasts(verdicts, experiment.baseline_arm) if seeds else {}
    return {
        "name": experiment.name,
        "description": experiment.description,
        "baseline": experiment.baseline_arm,
        "judge": judge(plan, store, verdicts),
        "n_prompts": len(next(iter(verdicts.values()))[0]["prompt_id"]) if seeds and arms else 0,
        "seeds": list(seeds),
        "arms": arm_rows(plan, store, seeds, verdicts, measured) if seeds else {},
        "contrasts": contrast_rows(differences),
        "power": {"minimum_detectable_difference": max((resolved_by(d) for d in differences.values()), default=None)},
        "reward_models": {n: reward_model_row(plan, store, n) for n in plan.reward_models if finished_seeds(plan, store, n)},
        "held_equal": held_equal(experiment),
        "deviations": deviations(experiment),
        "samples": samples(plan, store, arms, seeds[0]) if seeds else [],
        "frontier": frontier(plan, store),
        **sampled(plan, store),
        "curves": {a: {str(s): f"arms/{a}/seed-{s}/metrics.jsonl" for s in seeds if trained(plan, a, s)} for a in arms},
    }


def common_seeds(plan: Plan, store: Store) -> tuple[int, ...]:
    """Seeds for which every arm with any verdict has one, so that arms are compared on the same seeds."""
    done = {a: {s for s, node in per_seed.items() if store.has(plan[node].key)} for a, per_seed in plan.verdicts.items()}
    started = [s for s in done.values() if s]
    return tuple(s for s in plan.experiment.seeds if started and all(s in seeds for seeds in started))


def load(plan: Plan, store: Store, node: str, file: str) -> dict[str, Any]:
    return json.loads((store.path(plan[node].key) / file).read_text())


def table(verdicts: list[Mapping[str, Any]], field: str) -> np.ndarray:
    """[seeds, prompts] of a field of the verdicts."""
    return np.array([v[field] for v in verdicts], dtype=float)


def arm_rows(
    plan: Plan,
    store: Store,
    seeds: tuple[int, ...],
    verdicts: Mapping[str, list[Mapping[str, Any]]],
    measured: Mapping[str, list[Mapping[str, Any]]],
) -> dict[str, dict[str, Any]]:
    """A row per arm, with its win rate at equal length where that can be had."""
    baseline = plan.experiment.baseline_arm
    rows = {a: arm_row(plan, store, a, seeds, verdicts[a], measured[a]) for a in verdicts}
    if baseline in rows:
        outcomes = {a: table(v, "outcome") for a, v in verdicts.items()}
        chars = {a: table(m, "chars") for a, m in measured.items()}
        for arm in rows.keys() - {baseline}:
            rows[arm]["length_controlled"] = at_equal_length(outcomes, chars, arm, baseline)
    return rows


def arm_row(
    plan: Plan,
    store: Store,
    arm: str,
    seeds: tuple[int, ...],
    verdicts: list[Mapping[str, Any]],
    measured: list[Mapping[str, Any]],
) -> dict[str, Any]:
    """Everything `results.json` says of one arm."""
    mean = lambda field: float(np.mean([m[field] for m in measured]))  # noqa: E731
    proxies = {name: mean_or_none([v["proxies"][name] for v in verdicts]) for name in verdicts[0]["proxies"]}
    texts = [g.completions[0].text for s in seeds for g in generations(plan, store, arm, s)]
    row = {
        "method": plan.experiment.all_arms()[arm].method,
        "gold": mean_or_none([v["gold"] for v in verdicts]),
        "gold_per_seed": [mean_or_none(v["gold"]) for v in verdicts],
        "invalid": float(np.mean([v["account"]["invalid"] for v in verdicts])),
        "mean_length": mean("length"),
        "mean_chars": mean("chars"),
        "truncated": mean("truncated"),
        "kl": mean("kl"),
        "distinct_2": distinct_n(texts, 2),
        "reward": next(iter(proxies.values()), None),
        "proxies": proxies,
        "ledger": ledger(plan, store, arm, seeds),
    }
    if arm == plan.experiment.baseline_arm:
        return {"win_rate": 0.5, "ci95": None, "ci95_prompts_only": None, "per_seed": [0.5] * len(seeds), "ties": 1.0, **row}
    won = win_rate(table(verdicts, "outcome"))
    return {
        "win_rate": won.estimate,
        "ci95": list(won.ci95),
        "ci95_prompts_only": list(won.ci95_prompts_only),
        "per_seed": list(won.per_seed),
        "ties": won.ties,
        "note": won.note,
        **row,
    }


def ledger(plan: Plan, store: Store, arm: str, seeds: tuple[int, ...]) -> dict[str, float]:
    """Mean counts over seeds; seconds stay in the arms' own ledgers, since they differ from run to run."""
    rows = [load(plan, store, plan.arms[arm][s], "ledger.json") for s in seeds if trained(plan, arm, s)]
    names = ("tokens_generated", "tokens_trained", "reward_calls", "flops")
    return {name: float(np.mean([r[name] for r in rows])) if rows else 0.0 for name in names}


def trained(plan: Plan, arm: str, seed: int) -> bool:
    """False for an arm that is another stage's model, untouched."""
    return plan.arms[arm][seed].startswith(f"arms/{arm}")


def contrasts(verdicts: Mapping[str, list[Mapping[str, Any]]], baseline: str) -> dict[tuple[str, str], Difference]:
    """Every arm against every other, by the paired difference of their win rates over the baseline."""
    outcomes = {a: table(v, "outcome") for a, v in verdicts.items()}
    pairs = sorted(combinations(outcomes, 2), key=lambda p: baseline not in p)
    return {(b, a) if a == baseline else (a, b): paired_difference(*_ordered(outcomes, a, b, baseline)) for a, b in pairs}


def _ordered(outcomes: Mapping[str, np.ndarray], a: str, b: str, baseline: str) -> tuple[np.ndarray, np.ndarray]:
    return (outcomes[b], outcomes[a]) if a == baseline else (outcomes[a], outcomes[b])


def contrast_rows(differences: Mapping[tuple[str, str], Difference]) -> list[dict[str, Any]]:
    """Contrasts with Holm's correction over all of them; "better" needs the corrected p as well as the interval."""
    adjusted = holm([d.p for d in differences.values()])
    rows = []
    for ((a, b), d), p in zip(differences.items(), adjusted, strict=True):
        word = verdict(d)
        rows.append(
            {
                "a": a,
                "b": b,
                "difference": d.estimate,
                "ci95": list(d.ci95),
                "per_seed": list(d.per_seed),
                "p": d.p,
                "p_holm": p,
                "minimum_detectable_difference": resolved_by(d),
                "verdict": word if p < 0.05 else "inconclusive",
            }
        )
    return rows


def finished_seeds(plan: Plan, store: Store, name: str) -> list[int]:
    return [s for s, node in plan.reward_models[name].items() if store.has(plan[node].key)]


def reward_model_row(plan: Plan, store: Store, name: str) -> dict[str, Any]:
    """Accuracy, margin, log-loss, length correlation on held-out pairs: means over seeds, with the first seed's interval."""
    found = []
    for seed in finished_seeds(plan, store, name):
        scores = load(plan, store, plan.reward_models[name][seed], "scores.json")
        found.append(pair_metrics(scores["chosen"], scores["rejected"], scores["chosen_chars"], scores["rejected_chars"]))
    average = lambda field: float(np.mean([getattr(m, field) for m in found]))  # noqa: E731
    low, high = found[0].ci95
    shift = average("accuracy") - found[0].accuracy
    return {
        "accuracy": average("accuracy"),
        "ci95": [low + shift, high + shift],
        "per_seed": [m.accuracy for m in found],
        "mean_margin": average("mean_margin"),
        "log_loss": average("log_loss"),
        "ece": average("ece"),
        "length_correlation": average("length_correlation"),
        "ties": average("ties"),
        "n": found[0].n,
        "label_ceiling": label_ceiling(plan),
        **on_pairs(scores, load(plan, store, plan.reward_models[name][seed], "probes.json")),
    }


def sampled(plan: Plan, store: Store) -> dict[str, Any]:
    """What the scored samples of the start say: best-of-n curves, and each reward model's leaning to length."""
    node = plan.reward_samples
    if node is None or not store.has(plan[node].key):
        return {}
    scores = load(plan, store, node, "scores.json")
    return {"best_of_n": best_of_n(scores), "length_bias": length_leaning(scores)}


def frontier(plan: Plan, store: Store) -> dict[str, list[dict[str, Any]]]:
    """Reward, gold score and KL over training: the points of every finished seed of an arm."""
    found = {}
    for arm, seeds in plan.frontiers.items():
        done = [node for node in seeds.values() if store.has(plan[node].key)]
        if done:
            found[arm] = [point for node in done for point in load(plan, store, node, "frontier.json")]
    return found


def label_ceiling(plan: Plan) -> float | None:
    """The best accuracy any reward model could have under a built-in world's label noise."""
    if plan.experiment.data.world is None or plan.experiment.annotate is not None:
        return None
    from evenhand import worlds

    return float(worlds.get(plan.experiment.data.world, **plan.experiment.data.options).label_ceiling())


def judge(plan: Plan, store: Store, verdicts: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, Any]:
    """The judge's card: see `judged.judge_card`."""
    node = plan[next(iter(next(iter(plan.verdicts.values())).values()))]
    test = plan.judge_test
    tested = load(plan, store, test, "self_test.json") if test is not None and store.has(plan[test].key) else None
    return judge_card(plan.experiment.judge, node.spec["judge"], verdicts, plan.experiment.baseline_arm, tested)


def generations(plan: Plan, store: Store, arm: str, seed: int) -> list[Any]:
    return read_groups(store.path(plan[plan.generations[arm][seed]].key) / "generations.jsonl")


def samples(plan: Plan, store: Store, arms: list[str], seed: int) -> list[dict[str, Any]]:
    """Answers side by side, with the judge's score: the first prompts of one seed, never chosen by result."""
    answers = {a: generations(plan, store, a, seed)[:SHOWN_PROMPTS] for a in arms}
    judged = {a: load(plan, store, plan.verdicts[a][seed], "verdicts.json") for a in arms}
    measured = {a: load(plan, store, plan.generations[a][seed], "measured.json")["length"] for a in arms}
    return [
        {
            "prompt_id": groups[0].prompt.id,
            "prompt": groups[0].prompt.text,
            "answers": {a: g.completions[0].text for a, g in zip(arms, groups, strict=True)},
            "gold": {a: judged[a]["gold"][i] for a in arms},
            "outcome": {a: judged[a]["outcome"][i] for a in arms},
            "orders": {a: judged[a]["orders"][i] for a in arms if judged[a]["orders"][i]},
            "lengths": {a: measured[a][i] for a in arms},
        }
        for i, groups in enumerate(zip(*answers.values(), strict=True))
    ]
