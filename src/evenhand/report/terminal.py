"""The verdict table for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from evenhand.report.evaluations import evaluations_tables
from evenhand.report.formatting import MISSING, fixed
from evenhand.report.summary import ArmRow, Summary, summarise
from evenhand.report.text import headline, unscored
from evenhand.results.record import ArmVerdict, Results
from evenhand.results.record_judge import Pair

_LOOK = {
    ArmVerdict.BETTER: "bold cyan",
    ArmVerdict.WORSE: "bold yellow",
    ArmVerdict.INCONCLUSIVE: "dim",
    ArmVerdict.NO_RESULT: "dim",
}


_ALONE = "95% interval"
_JOINT = "for all arms"
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
        lost = unscored(self.results)
        yield _fitting(console, options, (_table(summary, lost, without) for without in _LEFT_OUT))
        if summary.evaluations:
            yield _fitting(console, options, evaluations_tables(summary))


def _fitting(console: Console, options: ConsoleOptions, tables: Iterable[Table]) -> Table:
    """The first that a line has room for, else the last."""
    for table in tables:
        wanted = Measurement.get(console, options.update(max_width=10_000), table).maximum
        if wanted <= options.max_width:
            break
    return table


def _table(summary: Summary, lost: Sequence[str], without: Sequence[str]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(headline(summary).title, style="bold"),
        title_justify="left",
        caption=_caption(summary, lost),
        caption_justify="left",
    )
    table.add_column("arm", overflow="fold")
    solved = ("solved %",) if summary.right_or_wrong else ()
    joint = (_JOINT,) if any(arm.ci95_simultaneous for arm in summary.arms) else ()
    without = [h for h in without if joint or h != _ALONE]
    headings = [h for h in (*solved, "win %", _ALONE, *joint, "per seed", "length", "KL") if h not in without]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=heading != "per seed")
    table.add_column("verdict", no_wrap=True)
    for arm in summary.arms:
        cells = _cells(arm)
        # Text, not str: a name such as "[bold]" is a name, not markup
        verdict = Text(arm.verdict.value, style=_LOOK.get(arm.verdict, ""))
        table.add_row(Text(arm.name), *(Text(cells[heading]) for heading in headings), verdict)
    return table


def _reward_models(summary: Summary) -> Table:
    """Reward models that were trained without an arm."""
    table = Table(box=box.SIMPLE_HEAD, title=Text(headline(summary).title, style="bold"), title_justify="left")
    table.add_column("reward model", overflow="fold")
    for heading in ("accuracy %", _ALONE, "log-loss", "pairs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, found in summary.reward_models.items():
        numbers = (_percentage(found.accuracy), _range(found.ci95), fixed(found.log_loss, 3), fixed(found.n, 0))
        table.add_row(Text(name), *map(Text, numbers))
    return table


def _cells(arm: ArmRow) -> dict[str, str]:
    """What stands under each heading."""
    return {
        "solved %": _percentage(arm.result.gold),
        "win %": _percentage(arm.win_rate),
        _ALONE: _range(arm.ci95),
        _JOINT: _range(arm.ci95_simultaneous or arm.ci95),
        "per seed": " ".join(_percentage(value) for value in arm.per_seed),
        "length": fixed(arm.result.mean_length, 0),
        "KL": fixed(arm.result.kl, 1),
    }


def _range(pair: Pair | None) -> str:
    return " to ".join(_percentage(value) for value in pair) if pair else MISSING


def _percentage(share: float | None) -> str:
    return MISSING if share is None else fixed(100 * share, 1)


def _caption(summary: Summary, lost: Sequence[str]) -> Text:
    prompts = f"{summary.n_prompts} held-out prompts" if summary.n_prompts else "held-out prompts"
    joint = "; the verdict goes with the interval for all arms together" if any(a.ci95_simultaneous for a in summary.arms) else ""
    looks = f"; {summary.looked}" if summary.looked else ""
    about = f"win rate against {summary.reference} on {prompts}, ties count half; length in tokens, KL in nats per sequence"
    return Text(". ".join([about + joint + looks, *(text.rstrip(".") for text in lost)]))
