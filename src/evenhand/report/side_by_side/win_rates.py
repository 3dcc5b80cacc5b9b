"""Win rates of every arm in every run with their intervals, on one axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter as of
from typing import TYPE_CHECKING

from evenhand.report.figures import PlotFigure, csv_text, ends, table
from evenhand.report.formatting import percent
from evenhand.report.plots.win_rates import share_axis
from evenhand.report.side_by_side.series import RunsShown, Series
from evenhand.report.style import INK, PAPER
from evenhand.report.svg import Drawing, Margins, canvas, render, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS: dict[str, Callable[[Series], float | str | None]] = {
    "arm": of("arm"), "run": of("label"), "win_rate": of("row.win_rate"), **ends("interval", of("row.verdict_ci95")),
}  # fmt: skip
_ROW, _BETWEEN = 25, 12
"""Pixels of a run, and of the room between two arms."""


def win_rates_beside(shown: RunsShown) -> PlotFigure | None:
    """None where nothing was judged."""
    drawn = [one for one in shown.series if one.row.win_rate is not None]
    if not drawn:
        return None
    apart = {label for label in shown.compared.labels if not shown.compared.comparable(label)}
    hollow = f" Hollow markers are not comparable with {shown.compared.labels[0]}'s." if apart else ""
    return PlotFigure(
        name="runs-win-rates",
        title="Win rates, each against its own run's baseline",
        caption="A colour is an arm, a marker a run. The whisker is the interval that goes with the verdict in its own run; "
        f"whether two of them overlap decides nothing, the differences in the table do.{hollow}",
        wide=_draw(drawn, apart, 920, "runs-win-rates"),
        narrow=_draw(drawn, apart, 360, "runs-win-rates-narrow"),
        csv=csv_text(*table(_COLUMNS, drawn)),
    )


def _places(drawn: Sequence[Series], row: float) -> list[float]:
    """How far down each row is, in pixels; arms stand apart."""
    places, below = [], row / 2
    for place, one in enumerate(drawn):
        below += _BETWEEN if place and one.arm != drawn[place - 1].arm else 0
        places.append(below)
        below += row
    return places


def _draw(drawn: Sequence[Series], apart: set[str], width: int, name: str) -> Drawing:
    wide = width > 500
    row = _ROW if wide else _ROW + 16
    places = _places(drawn, row)
    left = min(30 + 7.0 * max(len(one.name) for one in drawn), 330) if wide else 12
    margins = Margins(left=left, right=62 if wide else 16, top=10, bottom=46)
    with canvas(width, margins.top + margins.bottom + places[-1] + row / 2, margins) as (figure, axes):
        share_axis(axes, [share for one in drawn for share in (one.row.win_rate, *(one.row.verdict_ci95 or ()))])
        axes.set_ylim(places[-1] + row / 2, 0)
        for y, one in zip(places, drawn, strict=True):
            _mark(axes, one, y, hollow=one.label in apart)
            text, where = (percent(one.row.win_rate), (1, y)) if wide else (f"{one.name}  {percent(one.row.win_rate)}", (0, y))
            axes.annotate(text, where, (10, 0) if wide else (0, 14), xycoords=("axes fraction", "data"),
                          textcoords="offset points", va="center", fontsize=12, fontweight="bold")  # fmt: skip
        axes.set_yticks(places, [one.name for one in drawn] if wide else [""] * len(drawn), fontsize=12.5, color=INK.light)
        return render(figure, name, "Win rates: " + ", ".join(f"{one.name} {percent(one.row.win_rate)}" for one in drawn))


def _mark(axes: Axes, one: Series, y: float, *, hollow: bool) -> None:
    color = one.style.ink.light
    if (whisker := one.row.verdict_ci95) is not None:
        (line,) = axes.plot(whisker, (y, y), color=color, linewidth=1.8, marker="|", markersize=9, markeredgewidth=1.6,
                            linestyle=one.style.dash, zorder=2)  # fmt: skip
        tag(line, one.style, "whisker")
    rate = one.row.win_rate if one.row.win_rate is not None else 0.5
    fill, edge = (PAPER.light, color) if hollow else (color, PAPER.light)
    (dot,) = axes.plot(rate, y, one.style.marker, color=fill, markersize=9, markeredgecolor=edge,
                       markeredgewidth=1.8 if hollow else 1.2, zorder=4)  # fmt: skip
    tag(dot, one.style, "mean")
