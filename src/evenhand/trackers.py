"""Trackers: a run's metrics told to a tool that shows them. They read what was written and are no part of a result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evenhand.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """One arm and seed of an experiment; `metrics` is its metrics.jsonl, `out` the run directory."""

    experiment: str
    arm: str
    seed: int
    metrics: Path
    out: Path


class Tracker(Protocol):
    """Is told the metrics of each step in order, then that there are no more."""

    def log(self, metrics: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


TRACKERS = Registry[Callable[..., Tracker]]("tracker", named_by=("kind",))
"""Kind -> `builder(run, **settings)`, called for every `TrackedRun`."""
tracker = TRACKERS.register
"""Decorator: the builder below makes the tracker of that kind."""


def replay(settings: Mapping[str, Any] | str, runs: Iterable[TrackedRun]) -> None:
    """Every line of every run's metrics, told to a tracker of its own."""
    for run in runs:
        told: Tracker = TRACKERS.build(settings, run, where="tracker")
        for line in run.metrics.read_text(encoding="utf-8").splitlines():
            told.log(json.loads(line))
        told.close()


@tracker("lines")
class LineTracker:
    """All arms and seeds in one file of JSON lines, `path` in the run directory: to be read as one table."""

    def __init__(self, run: TrackedRun, path: str = "metrics.jsonl") -> None:
        self.run, self.path = run, run.out / path
        kept = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        rows = [json.loads(line) for line in kept]
        self.rows = [row for row in rows if (row["arm"], row["seed"]) != (run.arm, run.seed)]  # told once more, kept once

    def log(self, metrics: Mapping[str, Any]) -> None:
        self.rows.append({"arm": self.run.arm, "seed": self.run.seed, **metrics})

    def close(self) -> None:
        self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
