"""Reward models beyond accuracy: best-of-n curves by each of them, and the heat map of reward against length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evenhand.report.figures import PlotFigure, csv_text, slug
from evenhand.report.formatting import fixed, percent
from evenhand.report.style import ARMS, BASELINE, INK
from evenhand.report.svg import Drawing, Margins, canvas, render
from evenhand.results.record_parts import BestOfNPoint, LengthLeaning

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^vP"
_REFERENCES = ("the judge itself", "length")
"""Curves that are no reward model: the best any choice could do, and a choice by length alone."""


def best_of_n_figure(curves: Mapping[str, Sequence[BestOfNPoint]], arm: str = "") -> PlotFigure | None:
    """Expected gold score of each reward model's favourite of n answers, of an arm or of the start; None without curves."""
    if not curves:
        return None
    prompts = next(iter(curves.values()))[0].prompts
    rows = [
        [name, p.n, p.gold, *(p.ci95 or (None, None)), p.reward, p.kl_bound] for name, points in curves.items() for p in points
    ]
    whose = f"of {arm}" if arm else "of the starting policy"
    over = f"seeds and {prompts} prompts" if arm else f"{prompts} prompts"
    longest = ", “length” chooses the longest" if "length" in curves else ""
    name = f"best-of-n-{slug(arm)}" if arm else "best-of-n"
    return PlotFigure(
        name=name,
        title=f"Best of n, {arm}" if arm else "Best of n",
        caption=f"The mean gold score of the answer that each scorer likes best among n answers {whose}, over "
        f"all subsets of n; bands are 95% intervals over {over}. “The judge itself” is the best that choosing could "
        f"do{longest}. A reward model that does not rise above its start cannot guide training; one that "
        "falls as n grows is being exploited.",
        wide=_curves(curves, 460, name),
        narrow=_curves(curves, 360, f"{name}-narrow"),
        csv=csv_text(["scorer", "n", "gold", "ci95_low", "ci95_high", "reward", "kl_bound"], rows),
    )


def _curves(curves: Mapping[str, Sequence[BestOfNPoint]], width: int, name: str) -> Drawing:
    rows = (len(curves) + 1) // 2
    with canvas(width, 300 + 20 * rows, Margins(left=54, right=16, top=16 + 20 * rows, bottom=62)) as (figure, axes):
        for place, (scorer, points) in enumerate(curves.items()):
            reference = scorer in _REFERENCES
            color = BASELINE.light if reference else ARMS[place % len(ARMS)].light
            n, gold = [p.n for p in points], [p.gold for p in points]
            low, high = ([p.ci95[side] if p.ci95 is not None else p.gold for p in points] for side in (0, 1))
            axes.fill_between(n, low, high, color=color, alpha=0.12, linewidth=0)
            axes.plot(
                n, gold, color=color, linewidth=1.8, marker=_MARKERS[place % len(_MARKERS)], markersize=5, label=scorer,
                linestyle=(0, (5, 3)) if scorer == "length" else (0, (1, 1.6)) if reference else "solid",
            )  # fmt: skip
        points = next(iter(curves.values()))
        shown = [p for p in points if p.n in _ticks(len(points), 8 if width > 400 else 5)]
        axes.set_xticks([p.n for p in shown], [f"{p.n}\n{fixed(p.kl_bound, 2)}" for p in shown])
        axes.set_xlabel("n answers; below: KL at most log n − (n − 1)/n nats")
        axes.set_ylabel("gold score of the chosen")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=11, handlelength=2.2)
        return render(figure, name, "Best of n: " + ", ".join(f"{s} {fixed(p[-1].gold, 2)}" for s, p in curves.items()))


def _ticks(last: int, most: int) -> set[int]:
    """At most `most` of 1..last, the ends among them."""
    return {round(1 + i * (last - 1) / (most - 1)) for i in range(most)} if last > most else set(range(1, last + 1))


def length_figures(leaning: Mapping[str, LengthLeaning]) -> list[PlotFigure]:
    """A heat map per reward model: prompts by mean length of their answers and by the correlation of reward and length."""
    return [length_figure(name, found) for name, found in leaning.items()]


def length_figure(name: str, found: LengthLeaning) -> PlotFigure:
    """The heat map of one reward model."""
    heat = found.heatmap
    down, across, counts = heat.correlation, heat.length, np.array(heat.counts)
    rows = [
        [across[j], across[j + 1], down[i], down[i + 1], int(counts[i, j])]
        for i in range(counts.shape[0])
        for j in range(counts.shape[1])
    ]
    label = f"length-{slug(name)}"
    return PlotFigure(
        name=label,
        title=f"Reward and length: {name}",
        caption=f"Each of {found.prompts} prompts counts once, in the column of its answers' mean length and the row of the "
        f"correlation between reward and length among them. Mean correlation {fixed(found.mean_correlation, 2)}; above 0.3 in "
        f"{percent(found.share_above, 0)} of prompts. Mass above the middle line: longer answers score higher.",
        wide=_heat(counts, down, across, 460, label),
        csv=csv_text(["length_from", "length_to", "correlation_from", "correlation_to", "prompts"], rows),
    )


def _heat(counts: np.ndarray, down: Sequence[float], across: Sequence[float], width: int, name: str) -> Drawing:
    most = max(int(counts.max()), 1)
    with canvas(width, 320, Margins(left=70, right=16, top=14, bottom=46)) as (figure, axes):
        for i, j in zip(*np.nonzero(counts), strict=True):
            _cell(axes, (j, down[i]), down[i + 1] - down[i], counts[i, j] / most)
        axes.axhline(0.0, color=INK.light, linewidth=1.2)
        axes.set_xlim(0, counts.shape[1])
        axes.set_ylim(-1.02, 1.02)
        shown = range(0, len(across), max(1, (len(across) - 1) // 4))
        axes.set_xticks(list(shown), [f"{across[i]:.0f}" for i in shown])
        axes.set_xlabel("mean length of a prompt's answers, in tokens")
        axes.set_ylabel("correlation of reward and length")
        axes.grid(axis="x", visible=False)
        return render(figure, name, f"Heat map of reward-length correlation, at most {most} prompts in a cell")


def _cell(axes: Axes, corner: tuple[float, float], height: float, share: float) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle(corner, 1.0, height, facecolor=ARMS[0].light, alpha=0.12 + 0.88 * share, linewidth=0))
