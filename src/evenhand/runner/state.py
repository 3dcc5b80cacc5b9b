"""What a run's nodes are doing right now, and how long the rest will take. State only; `progress` draws it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenhand.plan.graph import Node


class StageStatus(StrEnum):
    """Where a node stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CACHED = "cached"
    """Its artifact lay in the store already."""
    DONE = "done"
    FAILED = "failed"
    WAITING = "waiting"
    """Needs people first, such as their labels."""
    BLOCKED = "blocked"
    """Not run, because an input failed or waits."""
    STOPPED = "stopped"
    """Interrupted; its partial artifact waits in the store."""

    @property
    def open(self) -> bool:
        return self in (StageStatus.QUEUED, StageStatus.RUNNING)

    @property
    def lost(self) -> bool:
        """Whether nothing that needs it can be run."""
        return self in (StageStatus.FAILED, StageStatus.WAITING, StageStatus.BLOCKED)

    @property
    def good(self) -> bool:
        return self in (StageStatus.CACHED, StageStatus.DONE)


URGENT = tuple(StageStatus(s) for s in ("failed", "running", "stopped", "waiting", "blocked", "queued", "done", "cached"))
"""What a cell of the matrix shows when several stages share it: the most urgent first."""


@dataclass(slots=True)
class StageState:
    """One stage of the run. `done` of `total` units (steps, prompts) are finished; `shown` are its latest figures."""

    node: Node
    status: StageStatus = StageStatus.QUEUED
    done: float = 0
    total: float = 0
    shown: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    started: float = 0.0
    ended: float = 0.0
    first: tuple[float, float] | None = None
    """Time and `done` of the first report: a resumed node did not do the earlier units in this run."""

    @property
    def share(self) -> float:
        return min(self.done / self.total, 1.0) if self.total else 0.0

    def seconds(self, now: float) -> float:
        return (self.ended or now) - self.started if self.started else 0.0

    def remaining(self, now: float) -> float | None:
        """Seconds to its end at the rate seen so far; None before there is a rate."""
        if self.first is None or self.done <= self.first[1]:
            return None
        rate = (self.done - self.first[1]) / max(now - self.first[0], 1e-9)
        return max(self.total - self.done, 0) / rate


class RunState:
    """States of a plan's stages by node name. For first estimates, `usual` has the seconds that a node of some kind took before,
    and `forecast` those that were predicted for a node of that name.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        *,
        workers: int = 1,
        usual: Mapping[str, float] | None = None,
        forecast: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cells = {n.name: StageState(n) for n in nodes}
        self.workers = max(workers, 1)
        self.usual = dict(usual or {})
        self.forecast = dict(forecast or {})
        self.coming: dict[str, int] = {}
        """Nodes that nobody can name yet, by kind: what will be run depends on what comes out."""
        self.clock = clock
        self.began = clock()

    def add(self, node: Node) -> StageState:
        """A node that has become known."""
        self.cells[node.name] = StageState(node)
        return self.cells[node.name]

    @property
    def total(self) -> int:
        """How many nodes there will be."""
        return len(self.cells) + sum(self.coming.values())

    def set(self, name: str, status: StageStatus, error: str = "") -> StageState:
        cell = self.cells[name]
        cell.status, cell.error = status, error
        if status is StageStatus.RUNNING:
            cell.started, cell.ended = self.clock(), 0.0
        elif cell.started:
            cell.ended = self.clock()
        return cell

    def move(self, name: str, done: float, total: float, shown: Mapping[str, Any]) -> StageState:
        cell = self.cells[name]
        if cell.first is None or done < cell.done or total != cell.total:  # a new phase counts from zero again
            cell.first = (self.clock(), done)
        cell.done, cell.total = done, total
        cell.shown = dict(shown)
        return cell

    def count(self, *statuses: StageStatus) -> int:
        return sum(c.status in statuses for c in self.cells.values())

    def elapsed(self) -> float:
        return self.clock() - self.began

    def eta(self) -> tuple[float, bool]:
        """Seconds to the end of the run, and whether every open node could be estimated (if not, it is a lower bound).

        Work left is shared evenly by the workers, but no less than the longest running node.
        """
        now, total, longest, certain = self.clock(), 0.0, 0.0, True
        means = self._means(now)
        for cell in self.cells.values():
            if not cell.status.open:
                continue
            left = cell.remaining(now) if cell.status is StageStatus.RUNNING else None
            if left is None:
                usual = means.get(cell.node.kind, self.forecast.get(cell.node.name))
                certain = certain and usual is not None
                left = max((usual or 0.0) - cell.seconds(now), 0.0)
            total += left
            longest = max(longest, left)
        for kind, count in self.coming.items():
            usual = means.get(kind)
            certain = certain and usual is not None
            total += count * (usual or 0.0)
        return max(total / self.workers, longest), certain

    def _means(self, now: float) -> dict[str, float]:
        """Mean seconds of a node by kind: from this run where it has any, else from earlier ones."""
        seen: dict[str, list[float]] = {}
        for cell in self.cells.values():
            left = cell.remaining(now) if cell.status is StageStatus.RUNNING else None
            if cell.status is StageStatus.DONE:
                seen.setdefault(cell.node.kind, []).append(cell.seconds(now))
            elif left is not None:
                seen.setdefault(cell.node.kind, []).append(cell.seconds(now) + left)
        return {**self.usual, **{kind: sum(s) / len(s) for kind, s in seen.items()}}
