"""Training length by inference length: what every arm is worth under each completion limit. See `evaluation.length_grid`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evenhand.evaluation.best_of_n import length_grid as by_training_length
from evenhand.results.files import parsed
from evenhand.results.judge_summary import mean_or_none
from evenhand.results.record_parts import GoldChange, GridCell, GridRow, LengthGrid, MethodGrid
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.stats.twoway import paired_difference, win_rate


def grid(done: RunArtifacts) -> LengthGrid | None:
    """`results.json`'s `length_grid`: a row per arm with a cell per limit (null where nothing finished); None without a grid.

    `methods` has the grid of training by inference limit of every method that was trained under several limits, by win rate.
    """
    limits = list(done.plan.grid)
    if not limits:
        return None
    read = {limit: done.judged(done.plan.grid[limit], ("length", "truncated")) for limit in limits}
    rows = [_row(done, arm, read) for arm in done.plan.arms]
    rows = [row for row in rows if any(row.cells)]
    return LengthGrid(inference=tuple(limits), rows=tuple(rows), methods=_methods(rows, limits))


JudgedSeeds = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""arm -> seed -> what was judged and measured there."""


def _row(done: RunArtifacts, arm: str, read: Mapping[int, JudgedSeeds]) -> GridRow:
    """One arm under every limit; `change` is its gold score, else win rate, minus that under the limit it was trained with."""
    given = done.plan.experiment.arm(arm)
    training = given.lengths.completion if given.trained else None
    own = read[training][arm] if training is not None and training in read else {}
    cells = tuple(_cell(seeds[arm], own, baseline=arm == done.baseline) for seeds in read.values())
    return GridRow(arm=arm, method=given.method, training=training, cells=cells)


def _cell(seeds: Mapping[int, Mapping[str, Any]], own: Mapping[int, Mapping[str, Any]], *, baseline: bool) -> GridCell | None:
    if not seeds:
        return None
    won = win_rate([v["outcome"] for v in seeds.values()])
    return GridCell(
        win_rate=won.estimate,
        ci95=None if baseline else won.ci95,
        gold=mean_or_none([v["gold"] for v in seeds.values()]),
        mean_length=float(np.mean([v["length"] for v in seeds.values()])),
        truncated=float(np.mean([v["truncated"] for v in seeds.values()])),
        seeds=tuple(seeds),
        change=_change(seeds, own),
    )


def _change(seeds: Mapping[int, Mapping[str, Any]], own: Mapping[int, Mapping[str, Any]]) -> GoldChange | None:
    """The gold score under this limit minus that under the training limit, paired by prompt and seed; None without scores."""
    shared = [s for s in seeds if s in own]
    here, there = ([side[s]["gold"] for s in shared] for side in (seeds, own))
    if not shared or any(v is None for rows in (here, there) for row in rows for v in row):
        return None
    found = paired_difference(here, there)
    return GoldChange(gold=found.estimate, ci95=found.ci95)


def _methods(rows: list[GridRow], limits: list[int]) -> dict[str, MethodGrid]:
    found = {}
    for method in dict.fromkeys(row.method for row in rows if row.method is not None):
        same = [(row, row.training) for row in rows if row.method == method and row.training is not None]
        if len({training for _, training in same}) > 1:
            cells: dict[tuple[int, int], list[float]] = {}
            for row, training in same:
                for limit, cell in zip(limits, row.cells, strict=True):
                    if cell is not None:
                        cells.setdefault((training, limit), []).append(cell.win_rate)
            found[method] = parsed(MethodGrid, by_training_length(cells))
    return found
