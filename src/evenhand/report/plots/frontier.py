"""Reward against distance: what each arm gained for how far it moved from its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evenhand.report.figures import PlotFigure, csv_text
from evenhand.report.formatting import is_number
from evenhand.report.plots.curves import Curves, smooth
from evenhand.report.style import INK, PAPER
from evenhand.report.summary import ArmRow, Summary
from evenhand.report.svg import Drawing, Margins, canvas, render, tag
from evenhand.report.text import listed
from evenhand.results.record import ArmResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PATH_POINTS = 24


class Path(NamedTuple):
    """An arm's way: distance and height at growing steps (may be empty), and where it ended (may be None)."""

    kl: tuple[float, ...]
    height: tuple[float, ...]
    end: tuple[float, float] | None


def reward_frontier(summary: Summary, curves: Curves) -> PlotFigure | None:
    """Training reward against KL: as it was measured on the way, else as it was recorded in training."""
    points = {arm.name: _measured(summary, arm) or _recorded(curves.get(arm.name, {})) for arm in summary.arms}
    paths = {arm.name: _path(arm.result, "reward", points[arm.name]) for arm in summary.arms}
    return _figure("frontier-reward", "Reward", "reward", paths, summary, _PROXY_READING + _whose(summary))


def gold_frontier(summary: Summary) -> PlotFigure | None:
    """The judge's gold score against KL."""
    paths = {arm.name: _path(arm.result, "gold", _measured(summary, arm)) for arm in summary.arms}
    return _figure("frontier-gold", "Gold score", "gold score", paths, summary, _GOLD_READING)


def _measured(summary: Summary, arm: ArmRow) -> list[dict[str, Any]]:
    return [asdict(point) for point in summary.results.frontier.get(arm.name, ())]


_PROXY_READING = (
    "Up is more of the reward that the arm was trained on, right is further from the starting policy. "
    "A line follows the mean of an arm's seeds through training; the large marker is the finished arm on the held-out prompts. "
    "Higher at the same KL is better."
)
_GOLD_READING = (
    "The same, with the score that the verdict rests on. Where training reward still climbs while this falls, "
    "the arm is exploiting the reward model (over-optimisation)."
)


def _whose(summary: Summary) -> str:
    """Whose reward the others' lines are: the first reward model's, of arms that have no reward or one that was not measured."""
    name = next((n for arm in summary.arms for n in arm.result.proxies), None)
    others = [arm.name for arm in summary.arms if arm.result.reward is None and name in arm.result.proxies]
    if not others:
        return ""
    return f" Shown for {listed(others)} is the score by {name}: no reward of their own was measured on these answers."


def _height(arm: ArmResult, key: str) -> float | None:
    """Where an arm ends: at its own reward, or by the first reward model where it was trained on none."""
    value = getattr(arm, key)
    return next(iter(arm.proxies.values()), None) if value is None and key == "reward" else value


def _path(arm: ArmResult, key: str, points: Sequence[Mapping[str, Any]]) -> Path:
    known = [p for p in points if is_number(p.get("kl")) and is_number(p.get(key))]
    steps: dict[float, list[tuple[float, float]]] = {}
    for point in known:
        steps.setdefault(point.get("step", 0), []).append((float(point["kl"]), float(point[key])))
    means = [np.mean(steps[step], axis=0) for step in sorted(steps)]  # over seeds, so that the line does not jump between them
    height_there = _height(arm, key)
    end = (arm.kl, float(height_there)) if arm.kl is not None and height_there is not None else None
    kl, height = _binned([float(m[0]) for m in means], [float(m[1]) for m in means])
    return Path(kl, height, end)


def _recorded(seeds: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """Training steps of all seeds."""
    return [row for rows in seeds.values() for row in rows]


def _binned(kl: list[float], height: list[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means over consecutive stretches of training, so that the noise of single steps does not hide the way."""
    if len(kl) <= _PATH_POINTS:
        return tuple(kl), tuple(height)
    parts = np.array_split(np.arange(len(kl)), _PATH_POINTS)
    x = np.array([np.mean([kl[i] for i in part]) for part in parts])
    y = np.array([np.mean([height[i] for i in part]) for part in parts])
    return tuple(smooth(x, 3).tolist()), tuple(smooth(y, 3).tolist())


def _figure(name: str, title: str, unit: str, paths: Mapping[str, Path], summary: Summary, reading: str) -> PlotFigure | None:
    shown = {arm: path for arm, path in paths.items() if path.end or len(path.kl) > 1}
    if len({(path.end or path.kl) for path in shown.values()}) < 2 and not any(len(p.kl) > 1 for p in shown.values()):
        return None  # a single point is no frontier; the table has it
    rows = [
        *([arm, "path", x, y] for arm, path in shown.items() for x, y in zip(path.kl, path.height, strict=True)),
        *([arm, "end", *path.end] for arm, path in shown.items() if path.end),
    ]
    table = csv_text(["arm", "kind", "kl", unit.replace(" ", "_")], rows)
    return PlotFigure(name=name, title=title, caption=reading, wide=_draw(name, title, unit, shown, summary), csv=table)


def _draw(name: str, title: str, unit: str, paths: Mapping[str, Path], summary: Summary) -> Drawing:
    with canvas(420, 310, Margins(left=54, right=18, top=16, bottom=46)) as (figure, axes):
        axes.margins(0.09)
        for arm in summary.arms:
            if arm.name in paths:
                _arm(axes, paths[arm.name], arm, named=not summary.crowded)
        axes.set_xlabel("KL from the start (nats per sequence)")
        axes.set_ylabel(unit)
        axes.locator_params(nbins=6)
        return render(figure, name, f"{title} against KL for {', '.join(paths)}")


def _arm(axes: Axes, path: Path, arm: ArmRow, *, named: bool) -> None:
    style, color = arm.style, arm.style.ink.light
    if len(path.kl) > 1:
        (line,) = axes.plot(path.kl, path.height, color=color, linewidth=1.8, linestyle=style.dash, alpha=0.75, zorder=2)
        tag(line, style, "path")
    if path.end:
        size = 11 if style.stands_out else 6
        (dot,) = axes.plot(
            *path.end, style.marker, color=color, markersize=size, markeredgecolor=PAPER.light, markeredgewidth=1.4, zorder=4
        )
        tag(dot, style, "end")
        if named and style.stands_out:  # the names of many arms would lie on each other
            axes.annotate(arm.name, path.end, (8, 7), textcoords="offset points", fontsize=11, color=INK.light, zorder=5)
