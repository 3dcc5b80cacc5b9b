"""Predictions as records: of one stage, and of a whole plan."""

from __future__ import annotations

from dataclasses import dataclass

from evenhand.plan.costs.machine import Machine
from evenhand.store.spent import Spent


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCost:
    """A prediction. `tokens` are those that run through a network, sampled ones included; `disk_bytes` is what stays.

    `peak_bytes` is of one process, of which there are `processes`; `step_seconds` those of the optimizer steps alone, and
    `waiting` the seconds in which nothing is computed. `known` is False where lengths were taken for the most that is allowed.
    """

    seconds: float
    peak_bytes: int
    tokens: int
    disk_bytes: int
    processes: int = 1
    step_seconds: float = 0.0
    waiting: float = 0.0
    known: bool = True

    @property
    def device_seconds(self) -> float:
        """Of processors or accelerators, one each process."""
        return self.seconds * self.processes


@dataclass(frozen=True, kw_only=True, slots=True)
class StageForecast:
    """One stage: what was predicted and what was spent, each None where it is not known; `fix` is what would make it fit."""

    node: str
    predicted: StageCost | None = None
    spent: Spent | None = None
    fits: bool = True
    fix: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanCosts:
    """All stages in the plan's order, and those of them that are not `made` yet.

    `machine` is None where nothing had to be predicted, or where `unknown` says why nothing could be.
    """

    stages: tuple[StageForecast, ...]
    made: frozenset[str] = frozenset()
    machine: Machine | None = None
    workers: int = 1
    unknown: str = ""

    def __getitem__(self, node: str) -> StageForecast:
        return next(s for s in self.stages if s.node == node)

    @property
    def to_run(self) -> tuple[StageCost, ...]:
        """The predictions for stages that are not made yet."""
        return tuple(s.predicted for s in self.stages if s.predicted is not None and s.node not in self.made)

    @property
    def too_large(self) -> tuple[StageForecast, ...]:
        """Stages that do not fit by themselves."""
        return tuple(s for s in self.stages if not s.fits and s.node not in self.made)

    @property
    def seconds(self) -> float:
        """Of the clock, where the workers share the work evenly."""
        costs = self.to_run
        return max(self.device_seconds / self.workers, max((c.seconds for c in costs), default=0.0))

    @property
    def device_seconds(self) -> float:
        return sum(c.device_seconds for c in self.to_run)

    @property
    def tokens(self) -> int:
        return sum(c.tokens for c in self.to_run)

    @property
    def disk_bytes(self) -> int:
        return sum(c.disk_bytes for c in self.to_run)

    @property
    def together(self) -> int:
        """Bytes that as many of the largest stages hold at once as there are workers."""
        return sum(sorted((c.peak_bytes * c.processes for c in self.to_run), reverse=True)[: self.workers])
