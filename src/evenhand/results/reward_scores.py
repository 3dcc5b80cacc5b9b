"""What reward models say of the arms' answers, what each arm's own reward says, and whether the judge is that same score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.evaluation.best_of_n import over_optimisation
from evenhand.results.judge_summary import mean_or_none
from evenhand.results.record import Unscored
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.spec.evaluations import ScoringJudge
from evenhand.spec.experiment import Experiment
from evenhand.spec.reward_resolution import functions_in, models_in, resolved_reward, specs_in
from evenhand.stages.training_samples import written

Table = Sequence[Sequence[float | None]]


def reward_means(done: RunArtifacts, arm: str) -> dict[str, float | None]:
    """The mean score of an arm's answers by every reward model, over the seeds that it scored; None of one that scored none."""
    seeds = [done.scores(done.plan.generations[arm][s], s) for s in done.seeds(arm)]
    return over_seeds(seeds)


def over_seeds(seeds: Sequence[Mapping[str, Table | None]]) -> dict[str, float | None]:
    """The mean of every reward model over all answers that it could score.

    >>> over_seeds([{"rm": [[1.0], [None]], "other": None}, {"rm": [[2.0], [3.0]], "other": None}])
    {'rm': 2.0, 'other': None}
    """
    names = dict.fromkeys(name for scores in seeds for name in scores)
    return {n: mean_or_none([v for scores in seeds for row in scores.get(n) or () for v in row]) for n in names}


def unscored(done: RunArtifacts) -> tuple[Unscored, ...]:
    """Reward models that did not score the answers of a seed that has a verdict, with the arms that this is true of."""
    lost: dict[tuple[str, tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for arm in done.arms:
        by_seed = {s: done.scores(done.plan.generations[arm][s], s) for s in done.seeds(arm)}
        for name in dict.fromkeys(name for scores in by_seed.values() for name in scores):
            missing = tuple(s for s, scores in by_seed.items() if scores.get(name) is None)
            if missing:
                lost.setdefault((name, missing, tuple(s for s in by_seed if s not in missing)), []).append(arm)
    return tuple(
        Unscored(reward_model=name, arms=tuple(arms), seeds=seeds, kept=kept) for (name, seeds, kept), arms in lost.items()
    )


def rewarded(done: RunArtifacts, arm: str, seed: int, points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points of an arm's training with the reward: its own, else what the first reward model says of the samples."""
    node = done.plan.arms[arm][seed]
    table = next(iter(done.scores(node, seed).values()), None)
    if table is None:
        return list(points)
    rows = written(done.store.path(done.plan[node].key))
    given = [row["reward"] if row["reward"] is not None else scores[0] for row, scores in zip(rows, table, strict=True)]
    by_step = over_optimisation([{"step": row["step"], "reward": reward} for row, reward in zip(rows, given, strict=True)])
    found = {p["step"]: {k: v for k, v in p.items() if k.startswith("reward")} for p in by_step}
    return [{**point, **found.get(point["step"], {})} for point in points]


def own_reward(experiment: Experiment, arm: str, proxies: Mapping[str, float | None], gold: float | None) -> float | None:
    """The arm's own training reward on its held-out answers, where a reward model or the judge is that reward.

    None for an arm without a reward (it learned from data), and for a reward that was not measured on these answers.
    """
    reward = resolved_reward(experiment.arm(arm).reward, experiment)
    if reward is None:
        return None
    if reward.get("kind") == "model" and reward.get("name") in proxies:
        return proxies[reward["name"]]
    judge = experiment.judge
    return gold if isinstance(judge, ScoringJudge) and resolved_reward(judge.reward, experiment) == reward else None


def trained_on_judge(experiment: Experiment) -> tuple[str, ...]:
    """Arms whose training reward is the judge's score, or that of a judge of the jury, or has a part in common with it."""
    scoring = [
        resolved_reward(judge.reward, experiment) for judge in experiment.judges().values() if isinstance(judge, ScoringJudge)
    ]
    rewards = {name: resolved_reward(arm.reward, experiment) for name, arm in experiment.all_arms().items()}
    shared = lambda reward: any(_in_common(reward, judge) for judge in scoring)  # noqa: E731
    return tuple(name for name, reward in rewards.items() if reward is not None and shared(reward))


def _in_common(a: Any, b: Any) -> bool:
    named = models_in(a) & models_in(b) or set(functions_in(a)) & set(functions_in(b))
    return bool(named) or b in specs_in(a) or a in specs_in(b)
