"""Which weights each arm kept, by what, and what weights on the way are worth, judged like the arm on prompts that chose none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from evenhand.results.files import carried, parsed
from evenhand.results.judge_summary import mean_or_none
from evenhand.results.record import ArmResult
from evenhand.results.record_parts import CheckpointChoice, TrainingPoint
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.stats.twoway import win_rate

SELECTION, METRICS = "selection.json", "metrics.jsonl"


def selections(done: RunArtifacts) -> dict[str, dict[str, CheckpointChoice]]:
    """Arm -> seed -> what its stage says of its choice; arms that keep their last weights are not there.

    `shared_prompts` counts the validation prompts that are among the evaluation's: anything but 0 makes the arm look better
    than it is. What choosing on the evaluation prompts would have added is not known, since no other weights are judged.
    """
    found: dict[str, dict[str, CheckpointChoice]] = {}
    for arm in done.arms:
        if not done.plan.trained(arm):
            continue
        for seed in done.seeds(arm):
            node = done.plan[done.plan.arms[arm][seed]]
            path = done.store.path(node.key) / SELECTION
            if done.has(node.name) and path.exists():
                shared = len(_validation(done, node.name) & set(done.verdicts[arm][seed]["prompt_id"]))
                choice = parsed(CheckpointChoice, done.load(node.name, SELECTION))
                found.setdefault(arm, {})[str(seed)] = replace(choice, shared_prompts=shared)
    return found


def _validation(done: RunArtifacts, name: str) -> frozenset[str]:
    """Ids of the prompts that chose."""
    from evenhand.stages.training_run import FitSpec
    from evenhand.stages.validate import held_out  # torch, only where an arm asks for it

    node = done.plan[name]
    inputs = {role: done.store.path(done.plan[other].key) for role, other in node.inputs.items()}
    assert isinstance(node.spec, FitSpec)
    return held_out(node.spec, inputs, node.spec.build())


def over_training(
    done: RunArtifacts, arms: Mapping[str, ArmResult], chosen: Mapping[str, Mapping[str, CheckpointChoice]]
) -> dict[str, tuple[TrainingPoint, ...]]:
    """By arm a point per step that was kept and judged, the arm itself last."""
    found: dict[str, list[TrainingPoint]] = {}
    for step, judged in done.plan.snapshots.items():
        for arm, rows in done.judged(judged, ("kl", "length")).items():
            if rows:
                found.setdefault(arm, []).append(_point(step, rows, _kept(chosen.get(arm, {}), step)))
    return {arm: (*points, *_last(done, arm, arms[arm], chosen.get(arm, {}))) for arm, points in found.items()}


def _point(step: int, rows: Mapping[int, Mapping[str, Any]], kept: tuple[int, ...]) -> TrainingPoint:
    won = win_rate([row["outcome"] for row in rows.values()])
    mean = lambda name: float(np.mean([row[name] for row in rows.values()]))  # noqa: E731
    return TrainingPoint(
        step=step, win_rate=won.estimate, ci95=won.ci95, gold=mean_or_none([row["gold"] for row in rows.values()]),
        kl=mean("kl"), mean_length=mean("length"), seeds=tuple(rows), kept=kept,
    )  # fmt: skip


def _last(done: RunArtifacts, arm: str, result: ArmResult, chosen: Mapping[str, CheckpointChoice]) -> tuple[TrainingPoint, ...]:
    """The arm itself; with `keep_checkpoint: best` it is one of the steps before, and stands at the end all the same."""
    steps = [_trained(done, arm, seed) for seed in result.seeds]
    if not steps or result.win_rate is None:
        return ()
    return (carried(TrainingPoint, result, step=max(steps), kept=_kept(chosen, max(steps)), last=True),)


def _trained(done: RunArtifacts, arm: str, seed: int) -> int:
    """Steps that a seed of the arm was trained for."""
    file = done.store.path(done.plan[done.plan.arms[arm][seed]].key) / METRICS
    return sum(1 for line in file.read_bytes().split(b"\n") if line.strip())


def _kept(chosen: Mapping[str, CheckpointChoice], step: int) -> tuple[int, ...]:
    return tuple(int(seed) for seed, choice in chosen.items() if choice.chosen == step)
