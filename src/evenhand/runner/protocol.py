"""The seam between a plan and what carries it out: processes of this machine, or a scheduler behind the same call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evenhand.plan.graph import Node
from evenhand.plan.plan import Plan
from evenhand.runner.progress import View
from evenhand.runner.state import RunState, StageStatus
from evenhand.store.store import Store


class Growth(Protocol):
    """A plan that grows: what is run next depends on what came out."""

    def __call__(self, board: RunState) -> Sequence[Node]:
        """The nodes that have become known since the last call, inputs first; called whenever a node has ended.

        `board.coming` is set to how many more there will be.
        """
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How each node ended, by name. `errors` has one line per failed or blocked node."""

    status: Mapping[str, StageStatus]
    errors: Mapping[str, str]
    seconds: Mapping[str, float]

    @classmethod
    def of(cls, board: RunState) -> Outcome:
        """Of a board on which nothing runs any more."""
        cells = board.cells
        return cls(
            status={n: c.status for n, c in cells.items()},
            errors={n: c.error for n, c in cells.items() if c.status.lost},
            seconds={n: c.seconds(c.ended) for n, c in cells.items() if c.status is StageStatus.DONE},
        )

    @property
    def ok(self) -> bool:
        return all(s.good for s in self.status.values())

    @property
    def all_cached(self) -> bool:
        """Whether everything was there already and nothing was made."""
        return all(s is StageStatus.CACHED for s in self.status.values())


class Runner(Protocol):
    """Brings every node of `plan` into `store`, and those that `more` names while it goes on. A failed node fails alone.

    `workers` and `threads` say how work is spread; `view` is told how far it is. Raises: KeyboardInterrupt when stopped.
    """

    def __call__(
        self,
        plan: Plan,
        store: Store,
        out: Path,
        *,
        workers: int | None = None,
        threads: int = 1,
        view: View | None = None,
        more: Growth | None = None,
    ) -> Outcome: ...
