"""The verdict table for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from evenhand.report.evaluations import evaluations_tables
from evenhand.report.formatting import MISSING, fixed
from evenhand.report.listing import listing
from evenhand.report.summary import ArmRow, Summary, summarise
from evenhand.report.text import headline, unscored
from evenhand.results.record import ArmVerdict, Results
from evenhand.results.record_judge import Pair

_LOOK = {ArmVerdict.BETTER: "bold cyan", ArmVerdict.WORSE: "bold yellow", ArmVerdict.BASELINE: ""}
"""Of the others the verdict is dim."""
_ALONE = "95% interval"
_LEFT_OUT = ((), ("per seed",), ("per seed", "KL"), ("per seed", "KL", "length"), ("per seed", "KL", "length", _ALONE))
"""What a line too short for everything does without, in this order; never the arm, the interval of its verdict, and that."""


@dataclass(frozen=True, slots=True)
class VerdictTable:
    """A row per arm: win rate, 95% interval, every seed, length, KL, verdict; as much as the terminal's width has room for.

    The title is the headline of the report. Below it the evaluations beside the comparison, if there are any.
    """

    results: Results

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        summary = summarise(self.results)
        if not summary.arms:
            yield _reward_models(summary)
            return
        yield _fitting(console, options, (_table(summary, without) for without in _LEFT_OUT))
        if self.results.evaluations:
            yield _fitting(console, options, evaluations_tables(summary))


def _fitting(console: Console, options: ConsoleOptions, tables: Iterable[Table]) -> Table:
    """The first that a line has room for, else the last."""
    for table in tables:
        wanted = Measurement.get(console, options.update(max_width=10_000), table).maximum
        if wanted <= options.max_width:
            break
    return table


def _table(summary: Summary, without: Sequence[str]) -> Table:
    joint = summary.joint
    columns: dict[str, Callable[[ArmRow], str]] = {
        **({"solved %": lambda arm: _percentage(arm.result.gold)} if summary.right_or_wrong else {}),
        "win %": lambda arm: _percentage(arm.win_rate), _ALONE: lambda arm: _range(arm.ci95),
        **({"for all arms": lambda arm: _range(arm.verdict_ci95)} if joint else {}),
        "per seed": lambda arm: " ".join(_percentage(value) for value in arm.per_seed),
        "length": lambda arm: fixed(arm.result.mean_length, 0), "KL": lambda arm: fixed(arm.result.kl, 1),
    }  # fmt: skip
    shown = {h: cell for h, cell in columns.items() if h not in without or (h == _ALONE and not joint)}
    about = [_about(summary, joint), *(text.rstrip(".") for text in unscored(summary.results))]
    table = listing(("arm",), tuple(shown), title=headline(summary).title, about=about)
    for column in table.columns:
        column.no_wrap &= str(column.header) != "per seed"
    for arm in summary.arms:
        verdict = Text(arm.verdict.value, style=_LOOK.get(arm.verdict, "dim"))
        table.add_row(Text(arm.name), *(Text(cell(arm)) for cell in shown.values()), verdict)
    return table


def _about(summary: Summary, joint: bool) -> str:
    prompts = f"{summary.results.n_prompts} held-out prompts" if summary.results.n_prompts else "held-out prompts"
    about = f"win rate against {summary.reference} on {prompts}, ties count half; length in tokens, KL in nats per sequence"
    about += "; the verdict goes with the interval for all arms together" if joint else ""
    return about + (f"; {summary.looked}" if summary.looked else "")


def _reward_models(summary: Summary) -> Table:
    """Reward models that were trained without an arm."""
    numbers = ("accuracy %", _ALONE, "log-loss", "pairs")
    table = listing(("reward model",), numbers, last="", title=headline(summary).title)
    for name, found in summary.results.reward_models.items():
        cells = (name, _percentage(found.accuracy), _range(found.ci95), fixed(found.log_loss, 3), fixed(found.n, 0))
        table.add_row(*map(Text, cells))
    return table


def _range(pair: Pair | None) -> str:
    return " to ".join(_percentage(value) for value in pair) if pair else MISSING


def _percentage(share: float | None) -> str:
    return MISSING if share is None else fixed(100 * share, 1)
