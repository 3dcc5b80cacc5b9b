"""From finished artifacts to `results.json`: the comparison, with its intervals. Nothing here depends on the clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evenhand.plan.plan import Plan
from evenhand.results.best_checkpoint import selections
from evenhand.results.comparison import Fits, arm_rows, contrast_rows, contrasts, resolution
from evenhand.results.fairness import deviations, held_equal
from evenhand.results.judge_summary import judge_card
from evenhand.results.length_grid import grid
from evenhand.results.reward_model_summary import best_of_n, length_leaning, on_pairs
from evenhand.results.run_artifacts import Finished
from evenhand.results.training_warnings import early_ends, of_stages, with_remarks
from evenhand.results.tuning import tuned_alike, tuning, untuned
from evenhand.stats.reward_model import pair_metrics
from evenhand.store.store import Store

SHOWN_PROMPTS = 60


def assemble(plan: Plan, store: Store, out: Path) -> dict[str, Any]:
    """The content of `results.json` from whatever has finished: an arm counts with its seeds, a pair with those of both."""
    experiment, done = plan.experiment, Finished.read(plan, store)
    seeds, fits = done.all_seeds, Fits()
    found = contrasts(done, fits)
    arms = with_remarks(arm_rows(done, fits), done) if seeds else {}
    return {
        "name": experiment.name,
        "description": experiment.description,
        "baseline": done.baseline,
        "judge": judge(done),
        "n_prompts": len(done.verdicts[done.arms[0]][done.seeds(done.arms[0])[0]]["prompt_id"]) if done.arms else 0,
        "seeds": list(seeds),
        "arms": arms,
        "contrasts": contrast_rows(found, done.baseline),
        "power": resolution(found),
        "excluded": excluded(done),
        "reward_models": {n: reward_model_row(done, n) for n in plan.reward_models if finished_seeds(done, n)},
        "held_equal": held_equal(experiment) + tuned_alike(done),
        "deviations": deviations(experiment) + early_ends(arms) + untuned(done),
        "samples": samples(done),
        "frontier": frontier(done),
        **sampled(done),
        **({"length_grid": lengths} if (lengths := grid(done)) is not None else {}),
        **({"selection": chosen} if (chosen := selections(done)) else {}),
        **({"tuning": how} if (how := tuning(done)) is not None else {}),
        **({"stage_warnings": said} if (said := of_stages(done)) else {}),
        "curves": curves(done),
    }


def curves(done: Finished) -> dict[str, dict[str, str]]:
    """Where the metrics of every trained arm lie in the run directory."""
    trained = [a for a in done.arms if done.plan.trained(a)]
    return {a: {str(s): f"arms/{a}/seed-{s}/metrics.jsonl" for s in done.seeds(a)} for a in trained}


def excluded(done: Finished) -> list[dict[str, Any]]:
    """The cells without a verdict: they count nowhere, and the reader must know that they do not."""
    lost = {a: [s for s in done.plan.experiment.seeds if s not in done.verdicts[a]] for a in done.plan.arms}
    return [{"arm": a, "seeds": seeds, "kept": list(done.seeds(a))} for a, seeds in lost.items() if seeds]


def finished_seeds(done: Finished, name: str) -> list[int]:
    return [s for s, node in done.plan.reward_models[name].items() if done.has(node)]


def reward_model_row(done: Finished, name: str) -> dict[str, Any]:
    """Accuracy, margin, log-loss, length correlation on held-out pairs: means over seeds, with the first seed's interval."""
    found = []
    for seed in finished_seeds(done, name):
        scores = done.load(done.plan.reward_models[name][seed], "scores.json")
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
        "label_ceiling": label_ceiling(done.plan),
        **on_pairs(scores, done.load(done.plan.reward_models[name][seed], "probes.json")),
    }


def sampled(done: Finished) -> dict[str, Any]:
    """What the scored samples of the start say: best-of-n curves, and each reward model's leaning to length."""
    node = done.plan.reward_samples
    if node is None or not done.has(node):
        return {}
    scores = done.load(node, "scores.json")
    return {"best_of_n": best_of_n(scores), "length_bias": length_leaning(scores)}


def frontier(done: Finished) -> dict[str, list[dict[str, Any]]]:
    """Reward, gold score and KL over training: the points of every finished seed of an arm."""
    found = {}
    for arm, seeds in done.plan.frontiers.items():
        nodes = [node for node in seeds.values() if done.has(node)]
        if nodes:
            found[arm] = [point for node in nodes for point in done.load(node, "frontier.json")]
    return found


def label_ceiling(plan: Plan) -> float | None:
    """The best accuracy any reward model could have under a built-in world's label noise."""
    if plan.experiment.data.world is None or plan.experiment.annotate is not None:
        return None
    from evenhand import worlds

    return float(worlds.get(plan.experiment.data.world, **plan.experiment.data.options).label_ceiling())


def judge(done: Finished) -> dict[str, Any]:
    """The judge's card: see `judged.judge_card`."""
    node = done.plan[next(iter(next(iter(done.plan.verdicts.values())).values()))]
    test = done.plan.judge_test
    tested = done.load(test, "self_test.json") if test is not None and done.has(test) else None
    verdicts = {a: list(done.verdicts[a].values()) for a in done.arms}
    return judge_card(done.plan.experiment.judge, node.spec.judge, verdicts, done.baseline, tested)


def samples(done: Finished) -> list[dict[str, Any]]:
    """Answers side by side, with the judge's score: the first prompts of one seed, never chosen by result.

    The seed is the first one that most arms have; an arm without it is left out here.
    """
    if not done.arms:
        return []
    seed = max(done.all_seeds, key=lambda s: sum(s in done.verdicts[a] for a in done.arms))
    arms = [a for a in done.arms if seed in done.verdicts[a]]
    answers = {a: done.generations(a, seed)[:SHOWN_PROMPTS] for a in arms}
    judged = {a: done.verdicts[a][seed] for a in arms}
    measured = {a: done.measured[a][seed]["length"] for a in arms}
    return [
        {
            "prompt_id": groups[0].prompt.id,
            "prompt": groups[0].prompt.text,
            "seed": seed,
            "answers": {a: g.completions[0].text for a, g in zip(arms, groups, strict=True)},
            "gold": {a: judged[a]["gold"][i] for a in arms},
            "outcome": {a: judged[a]["outcome"][i] for a in arms},
            "orders": {a: judged[a]["orders"][i] for a in arms if judged[a]["orders"][i]},
            "lengths": {a: measured[a][i] for a in arms},
        }
        for i, groups in enumerate(zip(*answers.values(), strict=True))
    ]
