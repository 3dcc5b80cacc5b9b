"""A run's figures one by one, by name, for who does not want the whole page."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from evenhand.errors import UserError, did_you_mean
from evenhand.report.figures import PlotFigure
from evenhand.report.plots.curves import DETAILS, LOSS, METRICS, Metric, curve_figures, other_metrics
from evenhand.report.plots.frontier import frontier_figures
from evenhand.report.plots.lengths import length_grid_figure
from evenhand.report.plots.over_training import over_training_figure
from evenhand.report.plots.phases import phase_figure
from evenhand.report.plots.signals import best_of_n_figure, length_figures
from evenhand.report.plots.win_rates import win_rate_figure
from evenhand.report.run_data import RunData
from evenhand.report.summary import Summary

_FIGURES: Mapping[str, Callable[[RunData, Summary], PlotFigure | None]] = {
    "win_rates": lambda run, summary: win_rate_figure(summary),
    "frontier_reward": lambda run, summary: _frontier(run, summary, "frontier-reward"),
    "frontier_gold": lambda run, summary: _frontier(run, summary, "frontier-gold"),
    "best_of_n": lambda run, summary: best_of_n_figure(run.results.best_of_n),
    "length_grid": lambda run, summary: length_grid_figure(run.results.length_grid, summary.reference),
    "over_training": lambda run, summary: over_training_figure(run.results, summary),
    "phases": lambda run, summary: phase_figure(run.ledgers, summary),
}


def figure(run: RunData, summary: Summary, name: str) -> PlotFigure:
    """The figure of that name: one of the page's, or the curve of a metric that was recorded while arms trained.

    Raises: UserError for an unknown name, and where the run recorded nothing of the kind.
    """
    metrics = {metric.key: metric for metric in (*METRICS, *DETAILS, LOSS, *other_metrics(run.curves))}
    arms = {f"best_of_n/{arm}": best_of_n_figure(curves, arm) for arm, curves in run.results.best_of_n_by_arm.items()}
    maps = zip(run.results.length_bias, length_figures(run.results.length_bias), strict=True)
    named = arms | {f"length_map/{reward}": drawn for reward, drawn in maps}
    if name in named and (own := named[name]) is not None:
        return own
    if name not in _FIGURES and name not in metrics:
        raise UserError(f"no figure is called '{name}'", where="plot", fix=did_you_mean(name, [*_FIGURES, *named, *metrics]))
    found = _FIGURES[name](run, summary) if name in _FIGURES else _curve(run, summary, metrics[name])
    if found is None:
        raise UserError(f"this run recorded nothing for '{name}'", where=str(run.folder), fix="see `report.html` for what it has")
    return found


def _frontier(run: RunData, summary: Summary, name: str) -> PlotFigure | None:
    return next((f for f in frontier_figures(run.results, summary, run.curves) if f.name == name), None)


def _curve(run: RunData, summary: Summary, metric: Metric) -> PlotFigure | None:
    return next(iter(curve_figures(run.curves, {arm.name: arm.style for arm in summary.arms}, (metric,))), None)
