"""Finished artifacts that turn out to be damaged: thrown away and made again, once in a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evenhand.runner.state import RunState, StageState, StageStatus
from evenhand.store import digests
from evenhand.store.store import GLANCE, Store

if TYPE_CHECKING:
    from evenhand.plan.graph import Node

MADE_AGAIN = "; it is made again"
_DECISIVE = (".safetensors", "generations.jsonl", "verdicts.json")
"""Files that the same stage writes with the same bytes every time (a ledger has seconds in it)."""


class Repairs:
    """What was thrown away in this run, and what it held when it was whole."""

    def __init__(self, board: RunState, store: Store) -> None:
        self.board, self.store = board, store
        self.before: dict[str, digests.Recorded] = {}
        self.unsealed: list[Node] = []
        """Nodes whose artifacts were made before artifacts had digests."""

    def look(self, cell: StageState) -> str:
        """Settles whether a node is cached; says so where its artifact is there and is not what was made.

        Large files are compared by their size here, and by their bytes before a stage uses them.
        """
        key = cell.node.key
        if not self.store.has(key):
            return ""
        if not (why := self.store.damage(key, up_to=GLANCE)):
            self.board.set(cell.node.name, StageStatus.CACHED)
            self.unsealed += [cell.node] if self.store.unsealed(key) else []
            return ""
        text = self.store.damaged_words(key, why)
        self._throw_away(key)
        return text + MADE_AGAIN

    def spoilt(self, key: str) -> list[Node] | None:
        """Throws away what an input turned out to be.

        Returns the nodes to make again, none where that is on its way; None where it has been made again before.
        """
        owners = [cell for cell in self.board.cells.values() if cell.node.key == key]
        finished = [cell.node for cell in owners if cell.status.good]
        if not finished and any(cell.status.open for cell in owners):
            return []
        if not finished or key in self.before:
            return None
        self._throw_away(key)
        return finished

    def differs(self, node: Node) -> str:
        """In words, that what was made again is not what it was: what was finished before came from other bytes."""
        old = self.before.get(node.key, {})
        new = digests.recorded(self.store.path(node.key)) if old else {}
        moved = [name for name in old if name.endswith(_DECISIVE) and new.get(name, old[name]) != old[name]]
        if not moved:
            return ""
        return (
            f"{node.name} was made again and {moved[0]} is not what it was (other versions, or a device that rounds differently "
            "each time): stages that were finished before started from the old one; a new --out and store make all of them anew"
        )

    def _throw_away(self, key: str) -> None:
        self.before[key] = digests.recorded(self.store.path(key))
        self.store.discard(key)
