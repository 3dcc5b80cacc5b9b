"""Training curves: one small figure per metric, a thin line per seed, a thick line for the arm's mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from evenhand.report.figures import PlotFigure, csv_text, slug
from evenhand.report.formatting import is_number
from evenhand.report.style import ArmStyle, arm_styles
from evenhand.report.svg import Drawing, Margins, canvas, render, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
_MOST_POINTS = 200


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of metrics.jsonl and how a student reads it."""

    key: str
    title: str
    unit: str
    reading: str


METRICS = (
    Metric("reward", "Reward", "training reward",
           "What the method is told to raise. A rise here is not yet a better answer: the held-out judge decides."),
    Metric("kl", "KL to the start", "nats per sequence",
           "How far the policy has moved from where it began. Moving further for the same reward is the more expensive way."),
    Metric("length", "Answer length", "tokens", "A steady climb often means that longer answers are paid for, not better ones."),
    Metric("entropy", "Entropy", "nats per token",
           "How undecided the policy is at each token. A fall to zero means that it repeats itself."),
    Metric("accuracy", "Preference accuracy", "share of pairs",
           "Share of training pairs that the policy, as the loss sees it, ranks as the labels do; 0.5 is guessing."),
    Metric("margin", "Preference margin", "", "By how much the loss sees the chosen answer ahead of the rejected one."),
    Metric("heldout/loss", "Held-out loss", "", "The loss on data that is not trained on; where it turns up, the arm overfits."),
)  # fmt: skip
DETAILS = (
    Metric("truncated", "Truncated answers", "share",
           "Share of answers cut at the token limit. Near 1, the limit sets the length."),
    Metric("chosen_logp", "Log-prob of chosen", "nats",
           "Often falls in preference training; that is no fault while the rejected one falls faster."),
    Metric("rejected_logp", "Log-prob of rejected", "nats", "Should fall below that of the chosen answer."),
    Metric("grad_norm", "Gradient norm", "", "Spikes show unstable steps."),
    Metric("lr", "Learning rate", "", "The schedule as it was used."),
)  # fmt: skip
LOSS = Metric("loss", "Loss", "", "Losses of different methods are on different scales: read each shape by itself.")


def other_metrics(curves: Curves) -> tuple[Metric, ...]:
    """Numbers that were recorded and have no entry above, under their own names."""
    known = {metric.key for metric in (*METRICS, *DETAILS, LOSS)} | {"step"}
    recorded = dict.fromkeys(key for seeds in curves.values() for rows in seeds.values() for row in rows for key in row)
    return tuple(Metric(key, key.replace("_", " "), "", "") for key in recorded if key not in known)


def curve_figures(
    curves: Curves, styles: Mapping[str, ArmStyle], metrics: Sequence[Metric], *, prefix: str = "curve"
) -> list[PlotFigure]:
    """A figure for each metric that at least one arm recorded; `prefix` keeps names apart on the page."""
    drawn = (curve_figure(curves, styles, metric, prefix=prefix) for metric in metrics)
    return [figure for figure in drawn if figure is not None]


def curve_figure(curves: Curves, styles: Mapping[str, ArmStyle], metric: Metric, *, prefix: str = "curve") -> PlotFigure | None:
    """A metric of every arm that recorded it; None where none did."""
    series = _series(curves, metric.key)
    return _figure(metric, series, styles, name=f"{prefix}-{slug(metric.key)}", title=metric.title) if series else None


def loss_figures(curves: Curves, styles: Mapping[str, ArmStyle]) -> list[PlotFigure]:
    """One loss figure per arm, each with its own scale."""
    return [
        _figure(LOSS, {arm: seeds}, styles, name=f"loss-{styles[arm].index}", title=arm)
        for arm, seeds in _series(curves, LOSS.key).items()
        if arm in styles
    ]


def shared_figures(curves: Curves) -> list[PlotFigure]:
    """What arms share and learn from: supervised fine-tuning by itself, and the reward models together."""
    found: list[PlotFigure] = []
    metrics = (LOSS, *(m for m in METRICS if m.key in ("accuracy", "margin", "heldout/loss")))
    for prefix, word, supervised in (("sft", "Fine-tuning", True), ("rm", "Reward model", False)):
        own = {name: curves[name] for name in curves if (name == "sft") is supervised}
        titled = [replace(m, title=f"{word}: {m.title.lower()}", reading="") for m in metrics]
        found += curve_figures(own, arm_styles(own, None), titled, prefix=prefix)
    return found


Line = tuple[np.ndarray, np.ndarray]
"""Steps and values of one seed."""


def _series(curves: Curves, key: str) -> dict[str, dict[str, Line]]:
    found: dict[str, dict[str, Line]] = {}
    for arm, seeds in curves.items():
        for seed, rows in seeds.items():
            points = [(row["step"], row[key]) for row in rows if is_number(row.get(key)) and is_number(row.get("step"))]
            if points:
                steps, values = zip(*points, strict=True)
                found.setdefault(arm, {})[seed] = (np.array(steps, float), np.array(values, float))
    return found


def mean_over_seeds(lines: Sequence[Line]) -> Line:
    """The mean at the steps that every seed has.

    >>> steps, mean = mean_over_seeds([(np.array([1., 2.]), np.array([0., 2.])), (np.array([2., 3.]), np.array([4., 9.]))])
    >>> steps.tolist(), mean.tolist()
    ([2.0], [3.0])
    """
    common = lines[0][0]
    for steps, _ in lines[1:]:
        common = np.intersect1d(common, steps)
    return common, np.mean([values[np.isin(steps, common)] for steps, values in lines], axis=0) if common.size else common


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """A centred running mean over `window` values (odd); at the ends over those of them that exist.

    >>> smooth(np.array([0., 3., 6., 3.]), 3).tolist()
    [1.5, 3.0, 4.0, 4.5]
    """
    half = window // 2
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def _window(count: int) -> int:
    """Smoothing only where there are enough steps to be noisy: about one thirtieth of them, odd."""
    return 1 if count < 60 else 2 * (count // 60) + 1


def _figure(
    metric: Metric, series: dict[str, dict[str, Line]], styles: Mapping[str, ArmStyle], *, name: str, title: str
) -> PlotFigure:
    window = _window(max(len(steps) for seeds in series.values() for steps, _ in seeds.values()))
    drawing = _draw(metric, series, styles, window, name)
    return PlotFigure(name=name, title=title, caption=metric.reading, wide=drawing, csv=_csv(series))


def _draw(metric: Metric, series: dict[str, dict[str, Line]], styles: Mapping[str, ArmStyle], window: int, name: str) -> Drawing:
    with canvas(310, 204, Margins(left=50, right=8, top=10, bottom=40)) as (figure, axes):
        crowded = sum(styles[arm].stands_out for arm in series if arm in styles) < len(series)
        for arm in sorted(series, key=lambda name: name in styles and styles[name].stands_out):  # the background first
            if arm in styles:
                _lines(axes, list(series[arm].values()), styles[arm], window, seeds=not crowded)
        axes.set_xlabel("step")
        axes.set_ylabel(metric.unit)
        axes.locator_params(axis="x", nbins=5, integer=True)
        axes.locator_params(axis="y", nbins=5)
        axes.margins(x=0.01)
        return render(figure, name, f"{metric.title} over training steps for {', '.join(series)}")


def _lines(axes: Axes, lines: Sequence[Line], style: ArmStyle, window: int, *, seeds: bool) -> None:
    color = style.ink.light
    thin = lines if seeds and (len(lines) > 1 or window > 1) else []  # one seed, unsmoothed: the mean is the seed
    for number, (steps, values) in enumerate(thin):
        keep = _thinned(len(steps))
        (line,) = axes.plot(steps[keep], values[keep], color=color, linewidth=0.8, alpha=0.3, zorder=2)
        tag(line, style, f"seed{number}")
    steps, values = mean_over_seeds(lines)
    keep = _thinned(len(steps))
    marker = style.marker if len(steps) == 1 else None
    (line,) = axes.plot(
        steps[keep], smooth(values, window)[keep], color=color, linewidth=2.1 if style.stands_out else 1.0,
        linestyle=style.dash, marker=marker, zorder=3,
    )  # fmt: skip
    tag(line, style, "mean")


def _thinned(count: int) -> np.ndarray:
    """Indices of at most `_MOST_POINTS` evenly spaced points, both ends included; a screen shows no more."""
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).round().astype(int))


def _csv(series: dict[str, dict[str, Line]]) -> str:
    columns = {(arm, seed): dict(zip(*line, strict=True)) for arm, seeds in series.items() for seed, line in seeds.items()}
    steps = sorted({step for column in columns.values() for step in column})
    header = ["step", *(f"{arm} seed {seed}" for arm, seed in columns)]
    return csv_text(header, ([int(step), *(column.get(step) for column in columns.values())] for step in steps))
