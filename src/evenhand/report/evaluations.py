"""The evaluations beside the comparison as tables: for spreadsheets and frames, for papers, for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter as of
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from evenhand.report.figures import Rows, ends, table
from evenhand.report.formatting import interval, p_value, percent, points, points_interval
from evenhand.report.latex import tabular, tex_escape, tex_verdict
from evenhand.report.listing import listing
from evenhand.report.summary import Summary
from evenhand.results.record_parts import EvaluatedArm, EvaluationResult


class _Row(NamedTuple):
    name: str
    of: EvaluationResult
    arm: str
    found: EvaluatedArm


def _rows(summary: Summary) -> Iterator[_Row]:
    """Evaluation by evaluation, the arms in the order of the report's tables."""
    for name, found in summary.results.evaluations.items():
        for arm in summary.ranked:
            yield _Row(name, found, arm.name, found.arms.get(arm.name, EvaluatedArm()))


def evaluations_rows(summary: Summary) -> Rows:
    """One row per evaluation and arm: its win rate against the baseline (a task's metric), and the difference to the baseline's.

    Shares in [0, 1]. `p_holm`, `ci95_simultaneous` and the verdict share one correction over `contrasts` contrasts: those with
    the baseline in the comparison, and in every evaluation.
    """
    columns: dict[str, Callable[[_Row], Any]] = {
        "evaluation": of("name"), "arm": of("arm"), "measure": of("of.measure"), "judge": of("of.judge"),
        "prompts": of("of.n_prompts"), "contrasts": of("of.contrasts"), "rate": of("found.rate"),
        **ends("ci95", of("found.ci95")), "difference": of("found.difference"),
        **ends("difference_ci95", of("found.ci95_difference")), **ends("ci95_simultaneous", of("found.verdict_ci95")),
        "p_holm": of("found.p_holm"), "verdict": of("found.verdict"),
    }  # fmt: skip
    return table(columns, _rows(summary))


def evaluations_tex(summary: Summary) -> str:
    """Arms by evaluations; a cell has the rate, and the difference to the baseline in points with its verdict's interval."""
    found = summary.results.evaluations
    head = ["Arm", *(tex_escape(f"{name}: {one.measure}") for name, one in found.items())]
    rows = [[tex_escape(arm.name), *(_tex_cell(one.arms.get(arm.name)) for one in found.values())] for arm in summary.ranked]
    notes = [line for line in (*measured(summary), shared_correction(summary)) if line]
    return tabular(notes, f"l{'l' * len(found)}", [head, *rows])


def _tex_cell(row: EvaluatedArm | None) -> str:
    if row is None or row.rate is None:
        return "--"
    rate = tex_escape(percent(row.rate))
    if row.difference is None:
        return rate
    gap = tex_escape(f"{points(row.difference)} ({points_interval(row.verdict_ci95)})")
    return f"{rate}, {gap}, {tex_verdict(row.verdict)}"


def measured(summary: Summary) -> list[str]:
    """What every evaluation measured, on how many prompts, by whom, a sentence each."""
    return [
        f"{name}: {found.measure} on {found.n_prompts or 'no'} prompts" + (f", judged by {found.judge}" if found.judge else "")
        for name, found in summary.results.evaluations.items()
    ]


def shared_correction(summary: Summary) -> str:
    """How many contrasts share the correction; empty where nothing was compared."""
    shared = next((found.contrasts for found in summary.results.evaluations.values() if found.contrasts is not None), None)
    if shared is None:
        return ""
    return (
        f"One correction covers all {shared} contrasts with {summary.reference}: those of the comparison and of every evaluation."
    )


def evaluations_tables(summary: Summary) -> Iterator[Table]:
    """The evaluations for a terminal, a row for each and every arm: with all columns, then without more and more of them."""
    for without in ((), ("p",), ("p", "95% interval")):
        yield _listed(summary, without)


def _listed(summary: Summary, without: Sequence[str]) -> Table:
    columns: dict[str, Callable[[EvaluatedArm], str]] = {
        "rate": lambda row: percent(row.rate), "95% interval": lambda row: interval(row.ci95),
        f"less {summary.reference}": lambda row: points(row.difference),
        "with all others": lambda row: points_interval(row.verdict_ci95), "p": lambda row: p_value(row.p_holm),
    }  # fmt: skip
    shown = {heading: cell for heading, cell in columns.items() if heading not in without}
    about = "; ".join([*measured(summary), "differences in points, with the interval that goes with the verdict"])
    found = listing(("evaluation", "arm"), tuple(shown), title="Other evaluations", about=[about, shared_correction(summary)])
    above = ""
    for name, _, arm, row in _rows(summary):
        found.add_row(*map(Text, ("" if name == above else name, arm, *(cell(row) for cell in shown.values()), row.verdict)))
        above = name
    return found
