"""The same arm in two runs: the difference of its win rates, paired over prompts and seeds, where both are on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evenhand.results.files import read_json
from evenhand.results.record_judge import Pair
from evenhand.results.side_by_side.opened import OpenedRun
from evenhand.results.side_by_side.yardstick import Yardstick
from evenhand.stats.twoway import paired_difference


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDifference:
    """An arm in run `label` less the same arm in the first run: the difference of the win rates (a share) and its interval.

    Over the `seeds` that both runs have. None with a `note` where there is no such difference, or none to be computed.
    """

    arm: str
    label: str
    difference: float | None = None
    ci95: Pair | None = None
    seeds: tuple[int, ...] = ()
    note: str = ""


def run_differences(runs: Sequence[OpenedRun], rule: Yardstick) -> tuple[RunDifference, ...]:
    """Every arm that the first run has too, of every other run; the baseline is what they are measured with."""
    first, *others = runs
    arms = [a for a in first.results.arms if a != first.results.baseline]
    return tuple(
        _difference(first, other, arm, rule.reasons[other.label]) for other in others for arm in arms if arm in other.results.arms
    )


def _difference(first: OpenedRun, other: OpenedRun, arm: str, reasons: Sequence[str]) -> RunDifference:
    if reasons:
        return RunDifference(arm=arm, label=other.label, note="not comparable")
    seeds = tuple(s for s in first.results.seeds if s in other.results.seeds)
    tables = [_outcomes(run, arm, seeds) for run in (other, first)]
    kept = tuple(s for s in seeds if all(s in table for table in tables))
    if not kept:
        return RunDifference(arm=arm, label=other.label, note="its verdicts prompt by prompt are not there")
    if all(first.keys.get(f"generations/{arm}/seed-{s}") == other.keys.get(f"generations/{arm}/seed-{s}") for s in kept):
        return RunDifference(arm=arm, label=other.label, difference=0.0, seeds=kept, note="the very same answers")
    found = paired_difference(*(np.array([table[s] for s in kept], dtype=float) for table in tables))
    return RunDifference(arm=arm, label=other.label, difference=found.estimate, ci95=found.ci95, seeds=kept, note=found.note)


def _outcomes(run: OpenedRun, arm: str, seeds: Sequence[int]) -> Mapping[int, list[float]]:
    """By seed the outcome on every held-out prompt, of the seeds whose verdicts the store still has."""
    found: dict[int, list[float]] = {}
    for seed in seeds:
        path = run.store / run.keys.get(f"verdicts/{arm}/seed-{seed}", "-") / "verdicts.json"
        if path.is_file():
            told: Mapping[str, Any] = read_json(path)
            found[seed] = [float(v) for v in told["outcome"]]
    return found
