"""Trackers: a run's metrics told to a tool that shows them. They read what was written and are no part of a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evenhand.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """One arm and seed of an experiment, in the run directory `out`.

    `name` ("dpo/seed-0") is the run's, `experiment` its group's. `resumed`: the tool was told its first lines before.
    """

    experiment: str
    arm: str
    seed: int
    out: Path
    resumed: bool = False

    @property
    def name(self) -> str:
        return f"{self.arm}/seed-{self.seed}"


class Tracker(Protocol):
    """Is told the metrics of each step in order, then that there are no more for now."""

    def log(self, metrics: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


TRACKERS = Registry[Callable[..., Tracker]]("tracker", named_by=("kind",))
"""Kind -> `builder(run, **settings)`, called for every `TrackedRun`."""
tracker = TRACKERS.register
"""Decorator: the builder below makes the tracker of that kind."""


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What a tool can plot: the numbers of a step, its count aside.

    >>> numbers({"step": 3, "loss": 0.5, "stopped": None, "note": "x"})
    {'loss': 0.5}
    """
    return {k: float(v) for k, v in metrics.items() if k != "step" and isinstance(v, int | float)}
