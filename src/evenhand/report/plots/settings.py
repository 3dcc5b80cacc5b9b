"""The value of every trial against each of its settings, with intervals; what was chosen stands out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evenhand.report.figures import PlotFigure, csv_text
from evenhand.report.formatting import fixed, is_number
from evenhand.report.style import FAINT, INK, SOFT, ArmStyle
from evenhand.report.svg import Drawing, Margins, canvas, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evenhand.results.tuning_record import TrialRecord, TunedArmRecord


def settings_figures(arm: str, raw: TunedArmRecord, style: ArmStyle, measure: str) -> list[PlotFigure]:
    """A figure per setting of one arm's space; none where every trial failed."""
    done = [t for t in raw.trials if is_number(t.value)]
    if not done:
        return []
    failed = [t for t in raw.trials if not is_number(t.value)]
    found, even = [], measure.startswith("win rate")
    for place, (name, dimension) in enumerate(raw.space.items()):
        label = f"settings-{style.index}-{place}"
        rows = [(t.trial, t.settings[name], t.value, *(t.ci95 or (None, None))) for t in raw.trials]
        found.append(
            PlotFigure(
                name=label,
                title=name,
                caption=_caption(measure, failed),
                wide=_draw(f"{arm}: {name}", name, dimension, (done, failed), raw.chosen, style, label, even),
                csv=csv_text(("trial", name, "value", "ci95_low", "ci95_high"), rows),
            )
        )
    return found


def _caption(measure: str, failed: Sequence[TrialRecord]) -> str:
    crosses = "; crosses below are trials that failed" if failed else ""
    return f"The {measure} of every trial with its 95% interval; a ring marks the chosen one{crosses}. Other settings vary too."


def _draw(
    said: str, name: str, dimension: Any, trials: tuple[Sequence[TrialRecord], Sequence[TrialRecord]], chosen: int | None,
    style: ArmStyle, label: str, even: bool,
) -> Drawing:  # fmt: skip
    done, failed = trials
    with canvas(310, 214, Margins(left=50, right=10, top=10, bottom=42)) as (figure, axes):
        where = _places(axes, dimension, [*done, *failed], name)
        for trial in done:
            _point(axes, where[trial.trial], trial, style, ringed=trial.trial == chosen)
        if even:
            axes.axhline(0.5, color=SOFT.light, linewidth=1.0, linestyle=(0, (3, 3)), zorder=1)
        low = min(t.ci95[0] if t.ci95 else t.value for t in done if t.value is not None)
        for trial in failed:
            axes.plot([where[trial.trial]], [low], marker="x", color=SOFT.light, markersize=6, linestyle="none")
        axes.set_xlabel(name)
        axes.locator_params(axis="y", nbins=5)
        told = "; ".join(f"{t.settings[name]} gives {fixed(t.value, 3)}" for t in done)
        return render(figure, label, f"Value of every trial against {said}: {told}")


def _places(axes: Axes, dimension: Any, trials: Sequence[TrialRecord], name: str) -> dict[int, float]:
    """Where each trial stands along the axis, by its number: on the range's own scale, or at the place of its choice."""
    if isinstance(dimension, Mapping):
        ends = dimension["log"] or dimension["linear"]
        if dimension["log"]:
            axes.set_xscale("log")
            axes.set_xticks(ticks := decades(*ends), [f"{tick:g}" for tick in ticks])
            axes.set_xlim(ends[0] / (ends[1] / ends[0]) ** 0.05, ends[1] * (ends[1] / ends[0]) ** 0.05)
        else:
            axes.set_xlim(ends[0] - 0.05 * (ends[1] - ends[0]), ends[1] + 0.05 * (ends[1] - ends[0]))
        axes.minorticks_off()
        return {t.trial: t.settings[name] for t in trials}
    axes.set_xticks(range(len(dimension)), [f"{c:g}" if isinstance(c, float) else str(c) for c in dimension])
    axes.set_xlim(-0.5, len(dimension) - 0.5)
    found: dict[int, float] = {}
    for place, choice in enumerate(dimension):  # trials of one choice stand side by side
        same = [t.trial for t in trials if t.settings[name] == choice]
        found |= {number: place + 0.12 * (i - (len(same) - 1) / 2) for i, number in enumerate(same)}
    return found


def decades(low: float, high: float) -> list[float]:
    """The ticks of a logarithmic axis: up to five powers of ten of a range, or its ends and middle where it has less than two.

    >>> decades(1e-5, 1e-3), decades(4e-5, 4e-3), decades(0.02, 0.08)
    ([1e-05, 0.0001, 0.001], [0.0001, 0.001], [0.02, 0.04, 0.08])
    >>> decades(1e-4, 1e4)
    [0.0001, 0.01, 1.0, 100.0, 10000.0]
    """
    first, last = math.ceil(round(math.log10(low), 9)), math.floor(round(math.log10(high), 9))
    powers = [float(f"1e{power}") for power in range(first, last + 1, max(1, (last - first + 3) // 4))]
    return powers if len(powers) > 1 else [low, float(f"{math.sqrt(low * high):.2g}"), high]


def _point(axes: Axes, x: float, trial: TrialRecord, style: ArmStyle, *, ringed: bool) -> None:
    assert trial.value is not None, "a trial that failed has no point"
    if trial.ci95:
        axes.plot([x, x], trial.ci95, color=style.ink.light if ringed else FAINT.light, linewidth=1.6, zorder=2)
    axes.plot([x], [trial.value], marker=style.marker, color=style.ink.light, markersize=6, linestyle="none", zorder=3)
    if ringed:
        axes.plot([x], [trial.value], marker="o", markerfacecolor="none", markeredgecolor=INK.light, markeredgewidth=1.4,
                  markersize=12, linestyle="none", zorder=4)  # fmt: skip
