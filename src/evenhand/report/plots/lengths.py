"""Training length by inference length: a row per arm, a column per completion limit, its win rate as the colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evenhand.report.figures import PlotFigure, csv_text
from evenhand.report.formatting import fixed, percent
from evenhand.report.style import INK, PHASES, SOFT
from evenhand.report.svg import Drawing, Margins, canvas, render
from evenhand.results.record_parts import GridCell, GridRow, LengthGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HIGH, LOW = PHASES[1], PHASES[2]
"""Above one half and below it."""
_HEADER = ("arm", "trained_to", "limit", "win_rate", "ci95_low", "ci95_high", "gold", "mean_length", "truncated", "gold_change",
           "gold_change_low", "gold_change_high", "seeds")  # fmt: skip


def length_grid_figure(grid: LengthGrid | None, baseline: str) -> PlotFigure | None:
    """None without a grid."""
    if grid is None or not grid.rows:
        return None
    limits, rows = grid.inference, _ordered(grid.rows, baseline)
    return PlotFigure(
        name="length-grid",
        title="Win rate by completion limit",
        caption=f"Each arm answers under each limit and is judged against {baseline}'s answers under the same limit; the share "
        "of answers that the limit cuts stands below. A frame marks the limit that the arm was trained under. Where the order of "
        "the arms changes from column to column, a verdict at one length is a verdict about that length.",
        wide=_draw(rows, limits, 880, "length-grid"),
        narrow=_draw(rows, limits, 360, "length-grid-narrow"),
        csv=csv_text(_HEADER, _cells(rows, limits)),
    )


def _ordered(rows: Sequence[GridRow], baseline: str) -> list[GridRow]:
    """Arms of one method together, by training limit; the baseline, one half by definition, is left out."""
    order = list(dict.fromkeys(row.method for row in rows))
    shown = [row for row in rows if row.arm != baseline]
    return sorted(shown, key=lambda row: (order.index(row.method), row.training or 0))


def _cells(rows: Sequence[GridRow], limits: Sequence[int]) -> list[list[Any]]:
    found = []
    for row in rows:
        for limit, cell in zip(limits, row.cells, strict=True):
            if cell is not None:
                gold, gold_ci95 = (cell.change.gold, cell.change.ci95) if cell.change is not None else (None, (None, None))
                low, high = cell.ci95 or (None, None)
                found.append([row.arm, row.training, limit, cell.win_rate, low, high, cell.gold, cell.mean_length,
                              cell.truncated, gold, *gold_ci95, len(cell.seeds)])  # fmt: skip
    return found


def _draw(rows: Sequence[GridRow], limits: Sequence[int], width: int, name: str) -> Drawing:
    wide = width > 500
    labels = [f"{row.arm}" + (f" (trained to {row.training})" if row.training and wide else "") for row in rows]
    left = min(30 + 6.6 * max(map(len, labels)), 300 if wide else 130)
    furthest = max((abs(c.win_rate - 0.5) for row in rows for c in row.cells if c), default=0.0) or 1.0
    with canvas(width, 60 + 46 * len(rows), Margins(left=left, right=12, top=12, bottom=48)) as (figure, axes):
        for place, row in enumerate(rows):
            for column, (limit, cell) in enumerate(zip(limits, row.cells, strict=True)):
                _cell(axes, (column, place), cell, furthest, framed=limit == row.training, wide=wide)
        axes.set_xlim(-0.5, len(limits) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(limits)), [str(limit) for limit in limits])
        axes.set_yticks(range(len(rows)), labels, fontsize=12, color=INK.light)
        axes.set_xlabel("tokens that an answer may have")
        axes.grid(visible=False)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        told = "; ".join(f"{r.arm} " + ", ".join(percent(c.win_rate, 0) if c else "-" for c in r.cells) for r in rows)
        return render(figure, name, f"Win rate by completion limit {', '.join(map(str, limits))}: {told}")


def _cell(axes: Axes, at: tuple[int, int], cell: GridCell | None, furthest: float, *, framed: bool, wide: bool) -> None:
    from matplotlib.patches import Rectangle

    x, y = at
    corner = (x - 0.48, y - 0.46)
    if cell is None:
        axes.annotate("no result", at, ha="center", va="center", fontsize=10.5, color=SOFT.light)
    else:
        color = HIGH.light if cell.win_rate >= 0.5 else LOW.light
        strength = 0.06 + 0.6 * abs(cell.win_rate - 0.5) / furthest
        axes.add_patch(Rectangle(corner, 0.96, 0.92, facecolor=color, alpha=strength, linewidth=0))
        axes.annotate(percent(cell.win_rate, 1 if wide else 0), (x, y - 0.12), ha="center", va="center", fontsize=12.5,
                      fontweight="bold")  # fmt: skip
        below = f"{_range(cell.ci95)} · {percent(cell.truncated, 0)} cut" if wide else f"{percent(cell.truncated, 0)} cut"
        axes.annotate(below, (x, y + 0.24), ha="center", va="center", fontsize=10, color=SOFT.light)
    if framed:
        axes.add_patch(Rectangle(corner, 0.96, 0.92, facecolor="none", edgecolor=INK.light, linewidth=1.6))


def _range(ci95: Sequence[float] | None) -> str:
    return f"{fixed(100 * ci95[0], 0)} to {fixed(100 * ci95[1], 0)}" if ci95 else "by definition"
