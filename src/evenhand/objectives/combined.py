"""A weighted sum of objectives, each divided by its own denominators: RPO, ORPO, SLiC with its likelihood term."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor

from evenhand.objectives.registry import objective
from evenhand.protocols import Objective, StepObjective
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms

T = TypeVar("T")


@objective("combined")
@dataclass(frozen=True, kw_only=True)
class Combined:
    """sum_j coefficient_j * objective_j. Components never dilute each other: each keeps its own denominator."""

    objectives: tuple[Objective, ...]
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.objectives) != len(self.coefficients):
            raise ValueError("one coefficient per objective")

    @property
    def reads(self) -> frozenset[Head]:
        return frozenset().union(*(o.reads for o in self.objectives))

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset().union(*(o.needs for o in self.objectives))

    def denominators(self, batch: Batch) -> Tensor:
        return torch.cat([o.denominators(batch) for o in self.objectives])

    def prepare(self, batches: Sequence[Batch], outs: Sequence[ModelOut]) -> list[Batch]:
        ready = list(batches)
        for each in self.objectives:
            if Need.STATISTICS in each.needs:
                ready = cast(StepObjective, each).prepare(ready, outs)
        return ready

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        terms: list[Term] = []
        metrics: dict = {}
        for each, coefficient in zip(self.objectives, self.coefficients, strict=True):
            part = each(out, batch)
            terms += [Term(t.name, coefficient * t.value, t.weight) for t in part.terms]
            metrics |= part.metrics
        return Terms(tuple(terms), metrics)


def part_of(objective: Objective, kind: type[T]) -> T | None:
    """The objective, or of a sum its first part, that is of that kind; None where there is none."""
    parts = objective.objectives if isinstance(objective, Combined) else (objective,)
    return next((part for part in parts if isinstance(part, kind)), None)
