"""Goes through a plan: which stage is next, and what follows from how it ends. Where stages run is the affair of its crew.

A failed or killed node fails alone: its dependants are blocked, everything else goes on. Stopping the run, by Ctrl-C or by
SIGKILL, leaves partial artifacts in the store; the same command goes on from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evenhand.errors import UserError
from evenhand.runner import ranks
from evenhand.runner.job import Job, as_job
from evenhand.runner.process import Setting
from evenhand.runner.progress import View
from evenhand.runner.protocol import Growth
from evenhand.runner.repairs import MADE_AGAIN, Repairs
from evenhand.runner.state import RunState, StageStatus
from evenhand.runner.worker import Together, ended
from evenhand.runner.worker_protocol import Died, Failed, Finished, Message, Note, Report, Spoilt, Waits
from evenhand.store import runs
from evenhand.store.store import Store

if TYPE_CHECKING:
    from evenhand.plan.graph import Node

_TICK = 0.25
"""Seconds between two looks at the crew and at the view."""


class Crew(Protocol):
    """Who runs stages: processes of this machine, or of a cluster. Every stage that is launched says how it ended, or died."""

    def begin(self, kinds: Sequence[str]) -> None:
        """Called once, before the first launch; `kinds` of stages are to come."""
        ...

    def room(self, node: Node) -> bool:
        """Whether this stage could be launched now."""
        ...

    def launch(self, job: Job, log: Path) -> None:
        """Begins a stage, whose output goes to `log`."""
        ...

    def heard(self, seconds: float) -> Iterator[tuple[str, Message]]:
        """What running stages have said, by name, in order, waiting for so long at most."""
        ...

    def end(self) -> None:
        """Ends what still runs: asks first, then kills."""
        ...


class Scheduler:
    """Brings the nodes of a board into the store, as they become ready. `crew` runs them; None: this process, one by one."""

    def __init__(
        self, board: RunState, store: Store, out: Path, setting: Setting, view: View, *, crew: Crew | None,
        more: Growth | None = None, together: Together = ranks.together,
    ) -> None:  # fmt: skip
        self.board, self.store, self.out, self.setting, self.view = board, store, out, setting, view
        self.crew, self.more, self.ended, self.together = crew, more, -1, together
        self.keys = {name: cell.node.key for name, cell in board.cells.items()}
        self.running: dict[str, Node] = {}
        self.noted: set[str] = set()
        self.repairs = Repairs(board, store)

    def run(self) -> None:
        try:
            self.store.root.mkdir(parents=True, exist_ok=True)
            runs.remember(self.store, self.out, self.keys)
        except OSError as error:
            fix = "free some space, or name another folder by `runtime.store` or EVENHAND_STORE"
            raise UserError(f"the store cannot be written: {error.strerror}", where=str(self.store.root), fix=fix) from error
        damaged = [(cell.node, text) for cell in self.board.cells.values() if (text := self.repairs.look(cell))]
        self.grow()
        self.view.start(self.board)
        for node, text in damaged:
            self.note(node, text)
        if old := self.repairs.unsealed:
            self.note(old[0], f"{len(old)} artifacts were made before artifacts had digests: damage to them cannot be seen")
        try:
            if self.crew is not None:
                self.by_crew(self.crew)
            else:
                self.in_this_process()
        finally:
            self.stop()
            self.view.stop()

    def in_this_process(self) -> None:
        while (node := self.next_ready()) or self.grow():
            if node is None:
                continue
            self.running[node.name] = node
            self.change(node.name, StageStatus.RUNNING)

            def report(done: float, total: float, _name: str = node.name, **shown: Any) -> None:
                self.board.move(_name, done, total, shown)
                self.view.tick()

            self.listen(node, ended(as_job(node, self.keys), self.setting, report, self.together))

    def by_crew(self, crew: Crew) -> None:
        crew.begin(sorted({cell.node.kind for cell in self.board.cells.values() if cell.status is StageStatus.QUEUED}))
        while True:
            self.grow()
            while (node := self.next_ready()) and crew.room(node):
                self.running[node.name] = node
                crew.launch(as_job(node, self.keys), self.out / "logs" / f"{node.name}.log")
                self.change(node.name, StageStatus.RUNNING)
            if not self.running:
                if self.grow():  # what was found in the store just now may call for more
                    continue
                return
            for name, message in crew.heard(_TICK):
                self.listen(self.running[name], message)
            self.view.tick()

    def grow(self) -> bool:
        """Adds the nodes that what has ended calls for, until it calls for none; whether there were any."""
        grown = False
        while self.more is not None and (ended := sum(not c.status.open for c in self.board.cells.values())) != self.ended:
            self.ended = ended
            for node in self.more(self.board):
                self.add(node)
                grown = True
        if grown:
            runs.remember(self.store, self.out, self.keys)
        return grown

    def add(self, node: Node) -> None:
        cell = self.board.add(node)
        self.keys[node.name] = node.key
        lost = [name for name in node.needs if self.board.cells[name].status.lost]
        if text := self.repairs.look(cell):
            self.note(node, text)
        if cell.status is StageStatus.CACHED:
            return
        if lost:
            cell.status, cell.error = StageStatus.BLOCKED, self.needs(lost[0])

    def next_ready(self) -> Node | None:
        """The first queued node whose inputs are there and whose artifact nobody of us is making."""
        busy = {node.key for node in self.running.values()}
        for cell in self.board.cells.values():
            if cell.status is not StageStatus.QUEUED or cell.node.key in busy:
                continue
            if all(self.board.cells[i].status.good for i in cell.node.needs):
                if not self.store.has(cell.node.key):
                    return cell.node
                self.change(cell.node.name, StageStatus.CACHED)  # an equal node, or another run, made it meanwhile
        return None

    def listen(self, node: Node, message: Message) -> None:
        """What a running stage says; anything but a report or a note is its last word."""
        if isinstance(message, Report):
            self.board.move(node.name, message.done, message.total, message.shown)
            return
        if isinstance(message, Note):
            self.note(node, message.text)
            return
        del self.running[node.name]
        if isinstance(message, Died):
            message = Finished() if self.store.has(node.key) else Failed(message.error)
        if isinstance(message, Failed):
            self.fail(node, message.error)
        elif isinstance(message, Waits):
            self.fail(node, message.text, StageStatus.WAITING)
        elif isinstance(message, Spoilt):
            self.spoilt(node, message)
        else:
            self.done(node)

    def done(self, node: Node) -> None:
        self.change(node.name, StageStatus.DONE)
        if text := self.repairs.differs(node):
            self.note(node, text)

    def spoilt(self, node: Node, message: Spoilt) -> None:
        """An input is damaged: it is made again, once, and then the node."""
        again = self.repairs.spoilt(message.key)
        if again is None:
            self.fail(node, f"{message.text}, again")
            return
        self.change(node.name, StageStatus.QUEUED)
        for owner in again:
            self.change(owner.name, StageStatus.QUEUED)
            self.note(owner, message.text + MADE_AGAIN)

    def fail(self, node: Node, error: str, status: StageStatus = StageStatus.FAILED) -> None:
        """It has no artifact: nothing that needs it can be run."""
        self.change(node.name, status, error)
        lost = {node.name}
        for name, cell in self.board.cells.items():  # topological order: one pass finds all dependants
            if cell.status is StageStatus.QUEUED and lost & set(cell.node.needs):
                lost.add(name)
                self.change(name, StageStatus.BLOCKED, self.needs(node.name))

    def needs(self, name: str) -> str:
        return f"needs {name}, which {'waits' if self.board.cells[name].status is StageStatus.WAITING else 'failed'}"

    def note(self, node: Node, text: str) -> None:
        """Shows a warning once, not for every arm and seed it holds for; the logs have them all."""
        if text not in self.noted:
            self.noted.add(text)
            self.view.noted(self.board.cells[node.name], text)

    def change(self, name: str, status: StageStatus, error: str = "") -> None:
        self.view.changed(self.board.set(name, status, error))

    def stop(self) -> None:
        """Ends what still runs (after Ctrl-C)."""
        if self.crew is not None:
            self.crew.end()
        self.running.clear()
        for name, cell in self.board.cells.items():
            if cell.status is StageStatus.RUNNING:
                self.change(name, StageStatus.STOPPED)
