"""Win rates against the baseline, with both intervals and every seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter as of
from typing import TYPE_CHECKING

from evenhand.report.figures import PlotFigure, csv_text, ends, table
from evenhand.report.formatting import percent
from evenhand.report.style import INK, PAPER, SOFT
from evenhand.report.summary import ArmRow, Summary
from evenhand.report.svg import Drawing, Margins, canvas, render, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _TIGHT = 46, 27
"""Pixels per arm; the second where there are many."""


def win_rate_figure(summary: Summary) -> PlotFigure | None:
    """A row per arm, best on top; None when nothing was judged."""
    if not summary.challengers:
        return None
    return PlotFigure(
        name="win-rates",
        title=f"Win rate against {summary.reference}",
        caption=_caption(summary),
        wide=_draw(summary, 920, "win-rates"),
        narrow=_draw(summary, 360, "win-rates-narrow"),
        csv=_csv(summary),
    )


def _caption(summary: Summary) -> str:
    prompts_only = any(arm.result.ci95_prompts_only for arm in summary.challengers)
    return (
        "The marker is the share of held-out prompts on which the arm's answer is preferred "
        f"over {summary.reference}'s, ties counted half. "
        "The whisker is the 95% interval over seeds and prompts: "
        "where it crosses the 50% line, the arm may be no better than the baseline. "
        + ("The thick part counts prompts only, as if these very checkpoints were all we cared about. " if prompts_only else "")
        + ("" if summary.crowded else "Small rings are single seeds.")
    )


def _draw(summary: Summary, width: int, name: str) -> Drawing:
    arms = summary.challengers
    wide = width > 500
    left = 30 + 7.2 * max(len(arm.name) for arm in arms) if wide else 12
    row = (_TIGHT if summary.crowded else _ROW) + (0 if wide else 14)
    margins = Margins(left=min(left, 260), right=62 if wide else 16, top=26 if wide else 38, bottom=46)
    height = margins.top + margins.bottom + row * len(arms)
    with canvas(width, height, margins) as (figure, axes):
        low, high = share_axis(axes, [v for arm in arms for v in _shares(arm)])
        axes.set_ylim(len(arms) - 0.5, -0.5)
        across = (0.5 - low) / (high - low)
        side = "center" if 0.2 < across < 0.8 else "left" if across <= 0.2 else "right"  # else it would leave the figure
        above = 8 if wide else 20  # on narrow screens the best arm's name stands between
        axes.annotate(f"50%: as good as {summary.reference}", (0.5, -0.5), (0, above), textcoords="offset points", ha=side,
                      fontsize=11, color=SOFT.light)  # fmt: skip
        for place, arm in enumerate(arms):
            _row(axes, arm, place, seeds=not summary.crowded)
            text, at = (percent(arm.win_rate), (1, place)) if wide else (f"{arm.name}  {percent(arm.win_rate)}", (0, place))
            axes.annotate(text, at, (10, 0) if wide else (0, 19), xycoords=("axes fraction", "data"),
                          textcoords="offset points", va="center", fontsize=12.5, fontweight="bold")  # fmt: skip
        axes.set_yticks(range(len(arms)), [arm.name for arm in arms] if wide else [""] * len(arms), fontsize=13, color=INK.light)
        label = "Win rates: " + ", ".join(f"{arm.name} {percent(arm.win_rate)}" for arm in arms)
        return render(figure, name, label)


def _row(axes: Axes, arm: ArmRow, place: int, *, seeds: bool) -> None:
    style, color = arm.style, arm.style.ink.light
    rate = arm.win_rate if arm.win_rate is not None else 0.5
    bar = axes.barh(place, rate - 0.5, left=0.5, height=0.42, color=color, alpha=0.16, linewidth=0, zorder=1)
    tag(bar.patches[0], style, "bar")
    if arm.ci95:
        (line,) = axes.plot(
            arm.ci95, (place, place), color=color, linewidth=1.6, marker="|", markersize=11, markeredgewidth=1.6, zorder=2
        )
        tag(line, style, "whisker")
    if arm.result.ci95_prompts_only:
        (line,) = axes.plot(
            arm.result.ci95_prompts_only, (place, place), color=color, linewidth=6, alpha=0.45, solid_capstyle="butt", zorder=2
        )
        tag(line, style, "prompts")
    (dot,) = axes.plot(
        rate, place, style.marker, color=color, markersize=10, markeredgecolor=PAPER.light, markeredgewidth=1.4, zorder=4
    )
    tag(dot, style, "mean")
    known = [value for value in arm.per_seed if value is not None] if seeds else []
    (rings,) = axes.plot(known, [place + 0.33] * len(known), "o", color="none", markersize=5.5, markeredgecolor=color,
                         markeredgewidth=1.3, zorder=3)  # fmt: skip
    tag(rings, style, "seeds")


def _shares(arm: ArmRow) -> list[float | None]:
    return [arm.win_rate, *arm.per_seed, *(arm.ci95 or ()), *(arm.result.ci95_prompts_only or ())]


def share_axis(axes: Axes, drawn: Iterable[float | None]) -> tuple[float, float]:
    """Lays out the axis of win rates, from the lowest to the highest that is drawn, with a line at one half; returns its ends."""
    values = [0.5, *(value for value in drawn if value is not None)]
    pad = 0.06 * max(max(values) - min(values), 0.1)
    low, high = max(-0.01, min(values) - pad), min(1.01, max(values) + pad)
    axes.set_xlim(low, high)
    axes.axvline(0.5, color=SOFT.light, linewidth=1.4, zorder=1.5)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    axes.set_xlabel("share of held-out prompts won")
    return low, high


def _csv(summary: Summary) -> str:
    columns: dict[str, Callable[[ArmRow], float | str | None]] = {
        "arm": of("name"), "win_rate": of("win_rate"), **ends("ci95", of("ci95")),
        **ends("prompts_only", of("result.ci95_prompts_only")),
    }  # fmt: skip
    header, rows = table(columns, summary.challengers)
    seeds = [f"seed_{seed}" for seed in summary.results.seeds]
    return csv_text([*header, *seeds], ([*row, *arm.per_seed] for row, arm in zip(rows, summary.challengers, strict=True)))
