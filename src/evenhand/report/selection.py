"""Which weights each arm kept, and what they were chosen on: rows for the page, and the validation curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.report.figures import PlotFigure
from evenhand.report.formatting import fixed
from evenhand.report.plots.curves import Curves, Metric, curve_figures
from evenhand.report.style import ArmStyle

Selection = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""arm -> seed -> selection.json."""
_RULES = {
    "reward": ("training reward of one answer each", "Mean reward on validation prompts", "training reward"),
    "loss": ("the method's own loss", "Loss on validation prompts", ""),
}


@dataclass(frozen=True, slots=True)
class Chosen:
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


def chosen_rows(selection: Selection | None, styles: Mapping[str, ArmStyle]) -> list[Chosen]:
    """A row per arm and seed that chose."""
    return [
        _row(arm, styles[arm], seed, raw)
        for arm, seeds in (selection or {}).items()
        if arm in styles
        for seed, raw in seeds.items()
        if raw.get("chosen") is not None
    ]


def _row(arm: str, style: ArmStyle, seed: str, raw: Mapping[str, Any]) -> Chosen:
    points = {point["step"]: point["validation"] for point in raw["points"]}
    return Chosen(
        arm=arm, style=style, seed=seed, step=raw["chosen"], rule=_RULES.get(raw["rule"], (raw["rule"],))[0],
        value=fixed(points.get(raw["chosen"]), 3), start=fixed(raw.get("start"), 3), prompts=raw.get("prompts", 0),
        measured=len(points), edge=raw["chosen"] == max(points, default=None),
    )  # fmt: skip


def shared_prompts(selection: Selection | None) -> int | None:
    """Validation prompts that also judge, the most of any arm and seed; None where nothing was chosen."""
    counts = [raw["shared_prompts"] for seeds in (selection or {}).values() for raw in seeds.values() if "shared_prompts" in raw]
    return max(counts, default=None)


def validation_figures(selection: Selection | None, styles: Mapping[str, ArmStyle]) -> list[PlotFigure]:
    """The validation curves, a figure per rule, since rewards and losses share no scale."""
    found: list[PlotFigure] = []
    for rule, (_, title, unit) in _RULES.items():
        curves: Curves = {
            arm: {
                seed: [{"step": 0, rule: raw.get("start")}, *({"step": p["step"], rule: p["validation"]} for p in raw["points"])]
                for seed, raw in seeds.items()
                if raw["rule"] == rule
            }
            for arm, seeds in (selection or {}).items()
        }
        reading = "Each arm keeps the weights of its " + ("highest" if rule == "reward" else "lowest") + " point."
        metric = Metric(rule, title, unit, reading)
        found += curve_figures(curves, styles, (metric,), prefix="validation")
    return found
