"""One self-contained page of several runs, in the look of a run's own."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from evenhand import __version__
from evenhand.errors import UserError
from evenhand.report.figures import PlotFigure, csv_text
from evenhand.report.page import assets, environment
from evenhand.report.plots.curves import DETAILS, LOSS, METRICS, curve_figures
from evenhand.report.side_by_side.answers import prompts_beside
from evenhand.report.side_by_side.series import RunsShown, Series, runs_shown
from evenhand.report.side_by_side.tables import cost_table, evaluation_rows, reward_model_rows
from evenhand.report.side_by_side.text import headline, less, scale
from evenhand.report.side_by_side.win_rates import win_rates_beside
from evenhand.results.side_by_side.compared import RunsCompared

PAGE = "comparison.html"
"""Where the page goes if nothing else is said."""


def write_comparison(compared: RunsCompared, path: Path) -> Path:
    """The page as a file.

    Raises: UserError where the path is a folder, or lies in one that is not there.
    """
    if path.is_dir() or not path.parent.is_dir():
        what = "this is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UserError(what, where=str(path), fix=f"name a file in a folder that is there, such as {PAGE}")
    path.write_text(html_of_runs(compared), encoding="utf-8")
    return path


def html_of_runs(compared: RunsCompared) -> str:
    """The page as text; it opens from disk and asks the network for nothing."""
    shown = runs_shown(compared)
    template = environment().get_template("compare.html.j2")
    return template.render(**_context(shown), **_figures(shown), **assets(), version=__version__)


def _context(shown: RunsShown) -> dict[str, Any]:
    compared = shown.compared
    return {
        "compared": compared,
        "styles": shown.styles,
        "series": shown.series,
        "headline": headline(compared),
        "labels": compared.labels,
        "incomparable": [(label, scale(compared, label)) for label in compared.labels if not compared.comparable(label)],
        "rates": {(one.arm, one.label): one.row.win_rate for one in shown.series if one.row.win_rate is not None},
        "less": less,
        "evaluations": evaluation_rows(shown),
        "reward_models": reward_model_rows(shown),
        "costs": cost_table(shown),
        "cards": prompts_beside(shown),
        "seed_shown": {run.label: next((s.seed for s in run.results.samples), None) for run in compared.runs},
        "settings_csv": settings_csv(compared),
    }


def _figures(shown: RunsShown) -> dict[str, Any]:
    curves = {one.name: shown.data[one.label].curves[one.arm] for one in shown.series if one.arm in shown.data[one.label].curves}
    styles = {one.name: one.style for one in shown.series}
    return {
        "win_rates": win_rates_beside(shown),
        "curves": curve_figures(curves, styles, METRICS),
        "details": curve_figures(curves, styles, DETAILS),
        "losses": _losses(shown),
        "lines": [one for one in shown.series if one.name in curves],
    }


def _losses(shown: RunsShown) -> list[PlotFigure]:
    """The loss of an arm in all runs that gave it one method: other methods' losses are other quantities."""
    found: list[PlotFigure] = []
    number = itertools.count()
    for arm in shown.compared.arms:
        series = [one for one in shown.series if one.arm == arm]
        for method in dict.fromkeys(one.row.result.method for one in series):
            drawn = {one.name: _curve(shown, one) for one in series if one.row.result.method == method and _curve(shown, one)}
            metric = replace(LOSS, title=arm if method in (None, arm) else f"{arm} ({method})")
            found += curve_figures(drawn, {one.name: one.style for one in series}, (metric,), prefix=f"own-{next(number)}")
    return found


def _curve(shown: RunsShown, one: Series) -> dict[str, list[dict[str, Any]]]:
    return shown.data[one.label].curves.get(one.arm, {})


def settings_csv(compared: RunsCompared) -> str:
    """The settings that differ, a column per run."""
    return csv_text(["key", "touches", *compared.labels], ([r.key, r.touches.value, *r.values] for r in compared.settings.apart))
