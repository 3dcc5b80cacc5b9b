"""What arms are worth on the way: weights of earlier steps judged like the arm itself, on the prompts that nothing chose by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evenhand.results.judge_summary import mean_or_none
from evenhand.results.record import ArmResult
from evenhand.results.record_parts import CheckpointChoice, TrainingPoint
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.stats.twoway import win_rate

METRICS = "metrics.jsonl"


def over_training(
    done: RunArtifacts, arms: Mapping[str, ArmResult], chosen: Mapping[str, Mapping[str, CheckpointChoice]]
) -> dict[str, tuple[TrainingPoint, ...]]:
    """By arm a point per step that was kept and judged, the arm itself last."""
    found: dict[str, list[TrainingPoint]] = {}
    for step, judged in done.plan.snapshots.items():
        for arm, seeds in judged.verdicts.items():
            there = {s: node for s, node in seeds.items() if done.has(node)}
            if there:
                rows = {s: _read(done, node, judged.generations[arm][s]) for s, node in there.items()}
                found.setdefault(arm, []).append(_point(step, rows, _kept(chosen.get(arm, {}), step)))
    return {arm: (*points, *_last(done, arm, arms[arm], chosen.get(arm, {}))) for arm, points in found.items()}


def _read(done: RunArtifacts, verdicts: str, answers: str) -> dict[str, Any]:
    return {**done.load(verdicts, "verdicts.json"), **{k: done.load(answers, "measured.json")[k] for k in ("kl", "length")}}


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
    return (
        TrainingPoint(
            step=max(steps), win_rate=result.win_rate, ci95=result.ci95, gold=result.gold, kl=result.kl,
            mean_length=result.mean_length, seeds=result.seeds, kept=_kept(chosen, max(steps)), last=True,
        ),
    )  # fmt: skip


def _trained(done: RunArtifacts, arm: str, seed: int) -> int:
    """Steps that a seed of the arm was trained for."""
    file = done.store.path(done.plan[done.plan.arms[arm][seed]].key) / METRICS
    return sum(1 for line in file.read_bytes().split(b"\n") if line.strip())


def _kept(chosen: Mapping[str, CheckpointChoice], step: int) -> tuple[int, ...]:
    return tuple(int(seed) for seed, choice in chosen.items() if choice.chosen == step)
