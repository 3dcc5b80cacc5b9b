"""An arm in a run, drawn: the arm's colour through all runs, and a stroke and a marker for each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from evenhand.report.run_data import RunData, read_run
from evenhand.report.style import ArmStyle, arm_styles
from evenhand.report.summary import ArmRow, Summary, summarise
from evenhand.results.side_by_side.compared import RunsCompared

STROKES: tuple[tuple[float, ...], ...] = ((), (5.0, 2.0), (1.2, 1.6), (7.0, 2.0, 1.2, 2.0))
"""Dashes of the runs' lines in their order, again from the start beyond four."""
MARKERS = "osD^"


@dataclass(frozen=True, slots=True)
class Series:
    """One arm of one run. `name` is how figures call it."""

    arm: str
    label: str
    style: ArmStyle
    row: ArmRow

    @property
    def name(self) -> str:
        return f"{self.arm} \N{MIDDLE DOT} {self.label}"

    @property
    def dashes(self) -> str:
        """The stroke as SVG has it; empty for a whole line."""
        return "" if isinstance(self.style.dash, str) else " ".join(f"{length:g}" for length in self.style.dash[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsShown:
    """What the page is made from: the comparison, and of every run all that its own page would show, by label."""

    compared: RunsCompared
    data: Mapping[str, RunData]
    summaries: Mapping[str, Summary]
    styles: Mapping[str, ArmStyle]
    """Of every arm, whatever the run."""
    series: tuple[Series, ...]


def runs_shown(compared: RunsCompared) -> RunsShown:
    """Reads what the figures and texts need."""
    data = {run.label: read_run(run.folder) for run in compared.runs}
    summaries = {run.label: summarise(run.results) for run in compared.runs}
    styles = arm_styles(compared.arms, compared.runs[0].results.baseline)
    return RunsShown(
        compared=compared, data=data, summaries=summaries, styles=styles, series=_series(compared, summaries, styles)
    )


def _series(compared: RunsCompared, summaries: Mapping[str, Summary], styles: Mapping[str, ArmStyle]) -> tuple[Series, ...]:
    """Arm by arm, in each the runs in their order."""
    found: list[Series] = []
    for arm in compared.arms:
        for place, label in enumerate(compared.labels):
            row = next((r for r in summaries[label].arms if r.name == arm), None)
            if row is not None:
                found.append(Series(arm, label, _styled(styles[arm], len(found), place), row))
    return tuple(found)


def _styled(style: ArmStyle, index: int, place: int) -> ArmStyle:
    stroke = STROKES[place % len(STROKES)]
    return replace(style, index=index, marker=MARKERS[place % len(MARKERS)], dash=(0.0, stroke) if stroke else "-")
