"""The same arm in two runs: the difference of its win rates, paired over prompts and seeds, where both are on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from evenhand.results.files import read_json
from evenhand.results.record import ArmVerdict, JudgedDifference
from evenhand.results.side_by_side.opened import OpenedRun
from evenhand.results.side_by_side.yardstick import Yardstick
from evenhand.stats.family import Judged, judged
from evenhand.stats.twoway import Difference, paired_difference


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDifference(JudgedDifference):
    """An arm in run `label` less the same arm in the first run, over the `seeds` that both runs have.

    None with a `note` where there is no such difference, or none to be computed. Its family are all differences between the runs.
    """

    arm: str
    label: str
    seeds: tuple[int, ...] = ()
    note: str = ""


def run_differences(runs: Sequence[OpenedRun], rule: Yardstick) -> tuple[RunDifference, ...]:
    """Every arm that the first run has too, of every other run; the baseline is what they are measured with."""
    first, *others = runs
    arms = [a for a in first.results.arms if a != first.results.baseline]
    found = [
        _difference(first, other, arm, rule.reasons[other.label]) for other in others for arm in arms if arm in other.results.arms
    ]
    known = [computed for _, computed in found if computed is not None]
    corrected = iter(judged(known, ["between runs"] * len(known)))
    return tuple(row if computed is None else _corrected(row, next(corrected)) for row, computed in found)


def _corrected(row: RunDifference, one: Judged) -> RunDifference:
    return replace(row, **{**asdict(one), "verdict": ArmVerdict(one.verdict)})


def _difference(first: OpenedRun, other: OpenedRun, arm: str, reasons: Sequence[str]) -> tuple[RunDifference, Difference | None]:
    """One of them by itself, and where it was computed what is corrected for the others."""
    said = partial(RunDifference, arm=arm, label=other.label)
    if reasons:
        return said(note="not comparable"), None
    seeds = tuple(s for s in first.results.seeds if s in other.results.seeds)
    tables = [_outcomes(run, arm, seeds) for run in (other, first)]
    kept = tuple(s for s in seeds if all(s in table for table in tables))
    if not kept:
        return said(note="its verdicts prompt by prompt are not there"), None
    if all(first.keys.get(f"generations/{arm}/seed-{s}") == other.keys.get(f"generations/{arm}/seed-{s}") for s in kept):
        return said(difference=0.0, seeds=kept, note="the very same answers"), None
    found = paired_difference(*(np.array([table[s] for s in kept], dtype=float) for table in tables))
    return said(difference=found.estimate, ci95=found.ci95, seeds=kept, note=found.note), found


def _outcomes(run: OpenedRun, arm: str, seeds: Sequence[int]) -> Mapping[int, list[float]]:
    """By seed the outcome on every held-out prompt, of the seeds whose verdicts the store still has."""
    found: dict[int, list[float]] = {}
    for seed in seeds:
        path = run.store / run.keys.get(f"verdicts/{arm}/seed-{seed}", "-") / "verdicts.json"
        if path.is_file():
            told: Mapping[str, Any] = read_json(path)
            found[seed] = [float(v) for v in told["outcome"]]
    return found
