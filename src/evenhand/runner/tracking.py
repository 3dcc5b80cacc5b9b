"""A view that also tells a tracker what arms record, while they train and when they have ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evenhand.plan.plan import Plan
from evenhand.runner.progress import View
from evenhand.runner.state import RunState, StageState, StageStatus
from evenhand.store.store import Store
from evenhand.trackers.following import Followed, Memory
from evenhand.trackers.protocol import TrackedRun

METRICS = "metrics.jsonl"
_SECONDS = 2.0
"""Between two looks at a file that grows."""


class Tracking:
    """Passes on to `view` what it is told. A tracker that fails is left alone from then on, with a note: no run ends by it."""

    def __init__(self, view: View, followed: Mapping[str, Followed], store: Store, memory: Memory) -> None:
        self.view, self.followed, self.store, self.memory = view, dict(followed), store, memory
        self.looked = 0.0

    def start(self, board: RunState) -> None:
        self.board = board
        self.view.start(board)
        for cell in board.cells.values():
            if cell.status is StageStatus.CACHED:
                self.tell(cell, ended=True)

    def changed(self, cell: StageState) -> None:
        self.view.changed(cell)
        if cell.status in (StageStatus.DONE, StageStatus.FAILED, StageStatus.WAITING, StageStatus.STOPPED):
            self.tell(cell, ended=True)

    def noted(self, cell: StageState, text: str) -> None:
        self.view.noted(cell, text)

    def tick(self) -> None:
        self.view.tick()
        if self.board.clock() - self.looked < _SECONDS:
            return
        self.looked = self.board.clock()
        for cell in self.board.cells.values():
            if cell.status is StageStatus.RUNNING:
                self.tell(cell, ended=False)

    def stop(self) -> None:
        for name in list(self.followed):
            self.tell(self.board.cells[name], ended=True)
        self.view.stop()

    def tell(self, cell: StageState, *, ended: bool) -> None:
        """What the stage has recorded since the last look."""
        if (followed := self.followed.get(cell.node.name)) is None:
            return
        try:
            told = followed.drain(self._metrics(cell.node.key))
            if ended:
                followed.close()
            if told:
                self.memory.write()
        except Exception as error:  # of any tool, about a network, a disk or a login: none of them may end a training
            self.followed.clear()
            fix = "the run goes on without it; `evenhand track RUN` tells it all later"
            self.view.noted(cell, f"the tracker failed ({type(error).__name__}: {error}): {fix}")

    def _metrics(self, key: str) -> Path:
        return (self.store.path(key) if self.store.has(key) else self.store.partial(key)) / METRICS


def tracked(view: View, settings: Mapping[str, Any] | str, experiment: str, plan: Plan, store: Store, out: Path) -> Tracking:
    """The view, with every trained arm and seed of the plan told to the tracker of those settings; equal stages once."""
    memory, followed = Memory(out, settings), dict[str, Followed]()
    for arm, seeds in plan.arms.items():
        for seed, name in seeds.items():
            if plan.trained(arm) and name not in followed:
                run = TrackedRun(experiment=experiment, arm=arm, seed=seed, out=out)
                followed[name] = Followed(settings, run, memory.of(run.name, plan[name].key))
    return Tracking(view, followed, store, memory)


def replay(
    settings: Mapping[str, Any] | str, experiment: str, out: Path, keys: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Tells the tracker of those settings all that the arms of a run directory have recorded, from the first step; their names.

    `keys` of the artifacts that the run directory shows, by their places: a run that goes on later is then told the rest alone.
    """
    memory, names = Memory(out, settings), []
    for path in sorted(out.glob(f"arms/*/seed-*/{METRICS}")):
        arm, seed = path.parts[-3], int(path.parts[-2].removeprefix("seed-"))
        run = TrackedRun(experiment=experiment, arm=arm, seed=seed, out=out)
        followed = Followed(settings, run, memory.anew(run.name, keys.get(f"arms/{run.name}", "")))
        followed.drain(path)
        followed.close()
        names.append(run.name)
    memory.write()
    return names
