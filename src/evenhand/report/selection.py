"""Which weights each arm kept, and what they were chosen on: rows for the page, and the validation curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evenhand.report.figures import PlotFigure
from evenhand.report.formatting import fixed
from evenhand.report.plots.curves import Curves, Metric, curve_figures
from evenhand.report.style import ArmStyle
from evenhand.results.record_parts import CheckpointChoice

Choices = Mapping[str, Mapping[str, CheckpointChoice]]
"""By arm and seed."""
_RULES = {
    "reward": ("training reward of one answer each", "Mean reward on validation prompts", "training reward"),
    "loss": ("the method's own loss", "Loss on validation prompts", ""),
}


@dataclass(frozen=True, slots=True)
class ChosenRow:
    """One arm and seed; `edge` says when the best step was the last one measured, so that more steps might have been better."""

    arm: str
    style: ArmStyle
    seed: str
    step: int
    rule: str
    value: str
    start: str
    prompts: int
    measured: int
    edge: bool


def chosen_rows(selection: Choices, styles: Mapping[str, ArmStyle]) -> list[ChosenRow]:
    """A row per arm and seed that chose."""
    return [
        _row(arm, styles[arm], seed, found, found.chosen)
        for arm, seeds in selection.items()
        if arm in styles
        for seed, found in seeds.items()
        if found.chosen is not None
    ]


def _row(arm: str, style: ArmStyle, seed: str, found: CheckpointChoice, step: int) -> ChosenRow:
    points = {point.step: point.validation for point in found.points}
    return ChosenRow(
        arm=arm, style=style, seed=seed, step=step, rule=_RULES.get(found.rule, (found.rule,))[0],
        value=fixed(points.get(step), 3), start=fixed(found.start, 3), prompts=found.prompts,
        measured=len(points), edge=step == max(points, default=None),
    )  # fmt: skip


def shared_prompts(selection: Choices) -> int | None:
    """Validation prompts that also judge, the most of any arm and seed; None where nothing was chosen."""
    counts = (found.shared_prompts for seeds in selection.values() for found in seeds.values())
    return max((count for count in counts if count is not None), default=None)


def validation_figures(selection: Choices, styles: Mapping[str, ArmStyle]) -> list[PlotFigure]:
    """The validation curves, a figure per rule, since rewards and losses share no scale."""
    figures: list[PlotFigure] = []
    for rule, (_, title, unit) in _RULES.items():
        curves: Curves = {
            arm: {
                seed: [{"step": 0, rule: found.start}, *({"step": p.step, rule: p.validation} for p in found.points)]
                for seed, found in seeds.items()
                if found.rule == rule
            }
            for arm, seeds in selection.items()
        }
        reading = "Each arm keeps the weights of its " + ("highest" if rule == "reward" else "lowest") + " point."
        metric = Metric(rule, title, unit, reading)
        figures += curve_figures(curves, styles, (metric,), prefix="validation")
    return figures
