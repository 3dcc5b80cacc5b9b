"""The best weights of a run by a validation number, kept while it goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.models.sharding import assign, full
from evenhand.train.checkpoint import trained

HIGHER = {"reward": True, "loss": False, "accuracy": True, "margin": True}
"""Whether more is better, by the name of what is measured."""


@dataclass(kw_only=True)
class Best:
    """Every validation number of a run, and the weights that had the best one; the earliest among equals.

    `rule` is one of HIGHER. The weights of the start are no candidate: their number is kept in `start`, for comparison.

    >>> best, model = Best(rule="loss"), nn.Linear(1, 1)
    >>> for step, value in ((2, 0.7), (4, 0.5), (6, 0.5)):
    ...     best.offer(step, value, model)
    >>> best.chosen
    4
    """

    rule: str
    start: float | None = None
    points: list[tuple[int, float]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def chosen(self) -> int | None:
        """The step with the best number; None before the first."""
        sign = -1.0 if HIGHER[self.rule] else 1.0
        return min(self.points, key=lambda point: (sign * point[1], point[0]))[0] if self.points else None

    def offer(self, step: int, value: float, model: nn.Module) -> None:
        """The number of the weights after `step`; they are copied if none was better. A NaN can be compared with nothing."""
        if math.isnan(value):
            raise ValueError(f"the validation number after step {step} is not a number")
        self.points.append((step, value))
        if self.chosen == step:
            self.weights = {n: full(t).to("cpu", copy=True) for n, t in trained(model).items()}

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Give the model the best weights."""
        for name, tensor in trained(model).items():
            assign(tensor, self.weights[name])

    def as_json(self) -> dict[str, Any]:
        """What is written as selection.json, but for how it was measured."""
        points = [{"step": step, "validation": value} for step, value in self.points]
        return {"rule": self.rule, "start": self.start, "points": points, "chosen": self.chosen}

    def load(self, data: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Go on from `as_json` and the weights of a checkpoint."""
        self.start = data["start"]
        self.points = [(p["step"], p["validation"]) for p in data["points"]]
        self.weights = dict(weights)
