"""The evaluations beside the comparison as tables: for spreadsheets and frames, for papers, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from evenhand.report.exports import Rows, tex_escape
from evenhand.report.figures import csv_text
from evenhand.report.formatting import MISSING, interval, p_value, percent, points, points_interval
from evenhand.report.summary import Summary
from evenhand.results.record import ArmVerdict
from evenhand.results.record_parts import EvaluatedArm, EvaluationResult

DECIDED = (ArmVerdict.BETTER.value, ArmVerdict.WORSE.value)


def evaluations_csv(summary: Summary) -> str:
    """`evaluations_rows` as CSV."""
    return csv_text(*evaluations_rows(summary))


def evaluations_rows(summary: Summary) -> Rows:
    """One row per evaluation and arm: its win rate against the baseline (a task's metric), and the difference to the baseline's.

    Shares in [0, 1]. `p_holm`, `ci95_simultaneous` and the verdict share one correction over `contrasts` contrasts: those with
    the baseline in the comparison, and in every evaluation.
    """
    header = ["evaluation", "arm", "measure", "judge", "prompts", "contrasts", "rate", "ci95_low", "ci95_high", "difference"]
    header += ["difference_ci95_low", "difference_ci95_high", "ci95_simultaneous_low", "ci95_simultaneous_high"]
    header += ["p_holm", "verdict"]
    rows: list[list[object]] = [
        [name, arm, found.measure, found.judge, found.n_prompts, found.contrasts, row.rate, *(row.ci95 or (None, None)),
         row.difference, *(row.ci95_difference or (None, None)), *(row.ci95_simultaneous or row.ci95_difference or (None, None)),
         row.p_holm, row.verdict]
        for name, found, arm, row in _each(summary)
    ]  # fmt: skip
    return header, rows


def _each(summary: Summary) -> Iterator[tuple[str, EvaluationResult, str, EvaluatedArm]]:
    """Evaluation by evaluation, the arms in the order of the report's tables."""
    for name, found in summary.evaluations.items():
        for arm in summary.ranked:
            yield name, found, arm.name, found.arms.get(arm.name, EvaluatedArm())


def evaluations_tex(summary: Summary) -> str:
    r"""A `tabular` for `\input`, arms by evaluations; needs the package booktabs. Bold marks a verdict, never the largest number.

    A cell has the rate, and the difference to the baseline in points with the interval that goes with its verdict.
    """
    names = list(summary.evaluations)
    head = ["Arm", *(tex_escape(f"{name}: {found.measure}") for name, found in summary.evaluations.items())]
    notes = [f"% {line}" for line in (*measured(summary), shared_correction(summary)) if line]
    rows = []
    for arm in summary.ranked:
        cells = [_tex_cell(summary.evaluations[name].arms.get(arm.name, EvaluatedArm())) for name in names]
        rows.append(" & ".join([tex_escape(arm.name), *cells]) + r" \\")
    begin = rf"\begin{{tabular}}{{l{'l' * len(names)}}}"
    lines = [*notes, begin, r"\toprule", " & ".join(head) + r" \\", r"\midrule", *rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex_cell(row: EvaluatedArm) -> str:
    if row.rate is None:
        return "--"
    rate = tex_escape(percent(row.rate))
    if row.difference is None:
        return rate
    verdict = rf"\textbf{{{row.verdict}}}" if row.verdict in DECIDED else row.verdict
    return f"{rate}, {tex_escape(f'{points(row.difference)} ({_interval(row)})')}, {verdict}"


def measured(summary: Summary) -> list[str]:
    """What every evaluation measured, on how many prompts, by whom, a sentence each."""
    return [
        f"{name}: {found.measure} on {found.n_prompts or 'no'} prompts" + (f", judged by {found.judge}" if found.judge else "")
        for name, found in summary.evaluations.items()
    ]


def shared_correction(summary: Summary) -> str:
    """How many contrasts share the correction; empty where nothing was compared."""
    shared = next((found.contrasts for found in summary.evaluations.values() if found.contrasts is not None), None)
    if shared is None:
        return ""
    return (
        f"One correction covers all {shared} contrasts with {summary.reference}: those of the comparison and of every evaluation."
    )


def evaluations_tables(summary: Summary) -> Iterator[Table]:
    """The evaluations for a terminal, a row for each and every arm: with all columns, then without more and more of them."""
    for without in ((), ("p",), ("p", INTERVAL)):
        yield _table(summary, without)


INTERVAL, OF_THE_VERDICT = "95% interval", "with all others"


def _table(summary: Summary, without: Sequence[str]) -> Table:
    caption = Text("; ".join([*measured(summary), "differences in points, with the interval that goes with the verdict"]))
    caption += Text(f". {shared}" if (shared := shared_correction(summary)) else "")
    table = Table(box=box.SIMPLE_HEAD, title=Text("Other evaluations", style="bold"), title_justify="left", caption=caption)
    table.caption_justify = "left"
    gap = f"less {summary.reference}"
    headings = [heading for heading in ("rate", INTERVAL, gap, OF_THE_VERDICT, "p") if heading not in without]
    for heading in ("evaluation", "arm"):
        table.add_column(heading, overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    above = ""
    for name, _, arm, row in _each(summary):
        cells = {
            "rate": percent(row.rate), INTERVAL: interval(row.ci95), gap: points(row.difference), OF_THE_VERDICT: _interval(row),
            "p": p_value(row.p_holm),
        }  # fmt: skip
        # Text, not str: a name such as "[bold]" is a name, not markup
        table.add_row(*map(Text, ("" if name == above else name, arm, *(cells[h] for h in headings), row.verdict)))
        above = name
    return table


def _interval(row: EvaluatedArm) -> str:
    pair = row.ci95_simultaneous or row.ci95_difference
    return points_interval(pair) if pair is not None else MISSING
