"""What arms are worth over training: win rates of the weights that were kept on the way, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evenhand.report.figures import PlotFigure, csv_text
from evenhand.report.formatting import percent
from evenhand.report.style import SOFT
from evenhand.report.summary import Summary
from evenhand.report.svg import Drawing, Margins, canvas, render
from evenhand.results.record_parts import TrainingPoint

Curves = Mapping[str, Sequence[TrainingPoint]]
_HEADER = ("arm", "step", "win_rate", "ci95_low", "ci95_high", "gold", "kl", "mean_length", "seeds", "kept_by_seeds", "last")


def over_training_figure(summary: Summary) -> PlotFigure | None:
    """None where no arm kept weights on the way."""
    colors = {arm.name: arm.style.ink.light for arm in summary.arms}
    curves = {arm: points for arm, points in summary.results.over_training.items() if arm in colors and len(points) > 1}
    if not curves:
        return None
    chosen = any(point.kept for points in curves.values() for point in points)
    return PlotFigure(
        name="over-training",
        title="Win rate over training",
        caption=f"Each point is an arm's weights after so many steps, judged against {summary.reference}'s final answers to the "
        "same held-out prompts; bars are 95% intervals. "
        + ("A ring marks what validation prompts chose. " if chosen else "")
        + "The highest point is known from the verdict's own prompts: report the arm, or what validation chose, not that.",
        wide=_draw(curves, colors, 880, "over-training"),
        narrow=_draw(curves, colors, 360, "over-training-narrow"),
        csv=csv_text(_HEADER, [_cells(arm, point) for arm, points in curves.items() for point in points]),
    )


def _cells(arm: str, p: TrainingPoint) -> list[object]:
    low, high = p.ci95 or (None, None)
    return [arm, p.step, p.win_rate, low, high, p.gold, p.kl, p.mean_length, len(p.seeds), len(p.kept), p.last]


def _draw(curves: Curves, colors: Mapping[str, str], width: int, name: str) -> Drawing:
    with canvas(width, 300 if width > 500 else 240, Margins(left=52, right=12, top=12, bottom=48)) as (figure, axes):
        axes.axhline(50, color=SOFT.light, linewidth=1, linestyle=(0, (4, 3)))
        span = max(p.step for points in curves.values() for p in points)
        for place, (arm, points) in enumerate(curves.items()):
            known = [p for p in points if p.win_rate is not None]
            shift = span * 0.006 * (place - (len(curves) - 1) / 2)  # so that bars of several arms stand side by side
            x, y = [p.step + shift for p in known], [100 * (p.win_rate or 0.0) for p in known]
            axes.plot(x, y, color=colors[arm], linewidth=1.8, marker="o", markersize=4.5, label=arm)
            for at, p in zip(x, known, strict=True):
                if p.ci95 is not None:
                    axes.plot([at, at], [100 * end for end in p.ci95], color=colors[arm], linewidth=1.1, alpha=0.75)
                if p.kept:
                    axes.plot([at], [100 * (p.win_rate or 0.0)], marker="o", markersize=11, fillstyle="none", color=colors[arm])
        axes.set_xlabel("steps trained")
        axes.set_ylabel("win rate, %")
        told = "; ".join(
            f"{arm} " + ", ".join(f"{p.step}: {percent(p.win_rate)}" for p in points) for arm, points in curves.items()
        )
        return render(figure, name, f"Win rate by training step: {told}")
