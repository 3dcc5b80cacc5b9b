"""Several runs in a terminal: a row per arm and run, and the settings that differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from evenhand.display import spelled_out
from evenhand.report.formatting import MISSING, fixed, interval, percent
from evenhand.report.listing import listing
from evenhand.report.side_by_side.text import headline, less
from evenhand.report.summary import ArmRow, summarise
from evenhand.results.side_by_side.compared import RunsCompared

MOST_SETTINGS = 20
"""More settings than this are counted; the page has them all."""


@dataclass(frozen=True, slots=True)
class RunsTable:
    """The headline, the settings that differ, and the verdict of every arm in every run."""

    compared: RunsCompared

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        said = headline(self.compared)
        yield Text(said.title, style="bold")
        for sentence in said.sentences:
            yield Text(sentence)
        if self.compared.settings.apart:
            yield _settings(self.compared)
        yield _verdicts(self.compared)


def _settings(compared: RunsCompared) -> Table:
    rows = compared.settings.apart
    more = f"{len(rows) - MOST_SETTINGS} more on the page" if len(rows) > MOST_SETTINGS else ""
    table = listing(("setting", *compared.labels), (), last="", about=[more])
    for row in rows[:MOST_SETTINGS]:
        table.add_row(*(Text(spelled_out(cell)) for cell in (row.key, *row.values)))
    return table


def _verdicts(compared: RunsCompared) -> Table:
    gap = f"less {compared.labels[0]}"
    table = listing(("arm", "run"), ("win %", "interval", gap, "length", "KL"))
    table.columns[4].no_wrap = False
    found = {run.label: {row.name: row for row in summarise(run.results).arms} for run in compared.runs}
    for arm in compared.arms:
        name = arm
        for label, rows in found.items():
            if arm in rows:
                table.add_row(*map(Text, (name, label, *_cells(compared, label, rows[arm]))))
                name = ""
    return table


def _cells(compared: RunsCompared, label: str, row: ArmRow) -> tuple[str, ...]:
    difference, note = less(compared, row.name, label)
    return (
        percent(row.win_rate), interval(row.verdict_ci95), difference or note or MISSING, fixed(row.result.mean_length, 0),
        fixed(row.result.kl, 1), row.verdict.value,
    )  # fmt: skip
