"""Several runs, compared: the one record that page, terminal table and Python read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evenhand.results.side_by_side.differences import RunDifference, run_differences
from evenhand.results.side_by_side.opened import OpenedRun, open_runs
from evenhand.results.side_by_side.settings import SettingsCompared, compare_settings
from evenhand.results.side_by_side.yardstick import Yardstick, yardstick


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsCompared:
    """The first run is what the others are compared with."""

    runs: tuple[OpenedRun, ...]
    settings: SettingsCompared
    yardstick: Yardstick
    differences: tuple[RunDifference, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(run.label for run in self.runs)

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms of all runs, in the order of the first that has each."""
        return tuple(dict.fromkeys(arm for run in self.runs for arm in run.results.arms))

    def difference(self, arm: str, label: str) -> RunDifference | None:
        """Of an arm in a run to the first run's; None where there is nothing to say."""
        return next((d for d in self.differences if (d.arm, d.label) == (arm, label)), None)

    def comparable(self, label: str) -> bool:
        """Whether the win rates of that run are on the first run's scale."""
        return not self.yardstick.reasons[label]


def compare_runs(folders: Sequence[str | Path]) -> RunsCompared:
    """Reads the run directories and compares them with the first of them.

    Raises: UserError where there are fewer than two, where one is named twice, and where one has no results.
    """
    runs = open_runs(folders)
    rule = yardstick(runs)
    return RunsCompared(runs=runs, settings=compare_settings(runs), yardstick=rule, differences=run_differences(runs, rule))
