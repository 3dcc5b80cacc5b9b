"""A run's figures one by one, by name: those that the page has once, and what else a run recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from evenhand.errors import UserError, did_you_mean
from evenhand.report.figures import PlotFigure
from evenhand.report.plots.curves import DETAILS, LOSS, METRICS, curve_figure, other_metrics
from evenhand.report.plots.frontier import gold_frontier, reward_frontier
from evenhand.report.plots.lengths import length_grid_figure
from evenhand.report.plots.over_training import over_training_figure
from evenhand.report.plots.phases import phase_figure
from evenhand.report.plots.signals import best_of_n_figure, length_figure
from evenhand.report.plots.win_rates import win_rate_figure
from evenhand.report.run_data import RunData
from evenhand.report.summary import Summary

FIGURES: Mapping[str, Callable[[RunData, Summary], PlotFigure | None]] = {
    "win_rates": lambda run, summary: win_rate_figure(summary),
    "frontier_reward": lambda run, summary: reward_frontier(summary, run.curves),
    "frontier_gold": lambda run, summary: gold_frontier(summary),
    "best_of_n": lambda run, summary: best_of_n_figure(run.results.best_of_n),
    "length_grid": lambda run, summary: length_grid_figure(run.results.length_grid, summary.reference),
    "over_training": lambda run, summary: over_training_figure(summary),
    "phases": lambda run, summary: phase_figure(run.ledgers, summary),
}


def figure(run: RunData, summary: Summary, name: str) -> PlotFigure:
    """The figure of that name: one of the page's, or the curve of a metric that was recorded while arms trained.

    Raises: UserError for an unknown name, and where the run recorded nothing of the kind.
    """
    draw = _by_name(run, summary)
    if name not in draw:
        raise UserError(f"no figure is called '{name}'", where="plot", fix=did_you_mean(name, list(draw)))
    if (found := draw[name]()) is None:
        raise UserError(f"this run recorded nothing for '{name}'", where=str(run.folder), fix="see `report.html` for what it has")
    return found


def _by_name(run: RunData, summary: Summary) -> dict[str, Callable[[], PlotFigure | None]]:
    results, metrics = run.results, (*METRICS, *DETAILS, LOSS, *other_metrics(run.curves))
    return {
        **{metric.key: partial(curve_figure, run.curves, summary.styles, metric) for metric in metrics},
        **{f"best_of_n/{arm}": partial(best_of_n_figure, curves, arm) for arm, curves in results.best_of_n_by_arm.items()},
        **{f"length_map/{reward}": partial(length_figure, reward, found) for reward, found in results.length_bias.items()},
        **{known: partial(drawn, run, summary) for known, drawn in FIGURES.items()},
    }
