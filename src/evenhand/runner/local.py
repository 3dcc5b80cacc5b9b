"""Runs a plan: every node that is not in the store yet, each in a process of its own, as many at once as there are workers.

A failed or killed node fails alone: its dependants are blocked, everything else goes on. Stopping the run, by Ctrl-C or by
SIGKILL, leaves partial artifacts in the store; the same command goes on from them.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.errors import Pending, UserError
from evenhand.plugins import Plugin, activate
from evenhand.runner import ranks, timings
from evenhand.runner.job import as_job, world_size
from evenhand.runner.process import THREADS, Setting
from evenhand.runner.progress import Quiet, View
from evenhand.runner.protocol import Growth, Outcome
from evenhand.runner.repairs import MADE_AGAIN, Repairs
from evenhand.runner.state import RunState, StageStatus
from evenhand.runner.worker import Together, perform, work
from evenhand.runner.worker_protocol import Failed, Finished, Note, Report, Spoilt, Waits, death, one_line
from evenhand.store import runs
from evenhand.store.store import Damaged, Store

if TYPE_CHECKING:
    from evenhand.plan.graph import Node
    from evenhand.plan.plan import Plan

STAGES = "evenhand.stages"
_WARM = "evenhand.runner.preload"
_WORKER = "evenhand.runner.worker"
"""What every worker imports: once, in the fork server, and not in each of them."""
_TICK = 0.25
_PATIENCE = 5.0
"""Seconds a stopped worker has to end before it is killed."""


def run(
    plan: Plan,
    store: Store,
    out: Path,
    *,
    workers: int | None = None,
    threads: int = 1,
    view: View | None = None,
    stages: str = STAGES,
    more: Growth | None = None,
    together: Together = ranks.together,
) -> Outcome:
    """Brings every node of `plan` into `store`, and those that `more` names while it goes on; logs go to `out/logs/NODE.log`.

    `workers` 0 runs the nodes one after another in this process (for a debugger); None means `default_workers`. `threads`
    is the number of torch threads of each worker; it is part of what makes a run repeatable, so it never follows the machine.
    `together` runs a stage of several ranks where nodes are run in this process.

    Raises: KeyboardInterrupt when stopped, after its workers have ended.
    """
    workers = default_workers(threads) if workers is None else workers
    _check_devices(plan.nodes, workers)
    board = RunState(plan.nodes, workers=workers, usual=timings.usual(out))
    scheduler = _Scheduler(board, store, Path(out), workers, threads, view or Quiet(), stages, more, plan.plugins, together)
    scheduler.run()
    timings.remember(board, out)
    cells = board.cells
    return Outcome(
        status={n: c.status for n, c in cells.items()},
        errors={n: c.error for n, c in cells.items() if c.status.lost},
        seconds={n: c.seconds(c.ended) for n, c in cells.items() if c.status is StageStatus.DONE},
    )


def default_workers(threads: int = 1) -> int:
    """One per visible CUDA device, or as many as the cores this process may use will hold."""
    return len(cuda_devices()) or max(len(os.sched_getaffinity(0)) // threads, 1)


def cuda_devices() -> list[str]:
    """Names of the CUDA devices of this machine, without starting CUDA here (a forked worker could not use it then)."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [d for d in chosen.split(",") if d.strip() not in ("", "-1")]
    found = (p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))
    return [str(i) for i in range(len(list(found)))]


def _check_devices(nodes: Sequence[Node], workers: int) -> None:
    """Every rank has a CUDA device of its own, where there are any. Raises: UserError where there are too few."""
    most, devices = max((world_size(n.spec) for n in nodes), default=1), cuda_devices()
    room = min(workers, len(devices)) if workers else len(devices)
    if devices and most > room:
        fewer = f"{len(devices)} CUDA devices here" + (f" and {workers} workers" if workers else "")
        raise UserError(
            f"{most} ranks need {most} devices, each a worker", where="runtime.ranks", why=fewer, fix=f"use at most {room} ranks"
        )


@dataclass(slots=True)
class _Worker:
    process: ForkServerProcess
    pipe: Connection
    node: Node
    slots: list[int]
    log: Path


class _Scheduler:
    def __init__(
        self, board: RunState, store: Store, out: Path, workers: int, threads: int, view: View, stages: str, more: Growth | None,
        plugins: tuple[Plugin, ...], together: Together,
    ) -> None:  # fmt: skip
        self.board, self.store, self.out, self.threads, self.view, self.stages = board, store, out, threads, view, stages
        self.more, self.ended, self.plugins, self.together = more, -1, plugins, together
        self.keys = {name: cell.node.key for name, cell in board.cells.items()}
        self.workers, self.slots = workers, list(range(workers))
        self.running: dict[str, _Worker] = {}
        self.devices = cuda_devices()
        self.noted: set[str] = set()
        self.repairs = Repairs(board, store)

    def run(self) -> None:
        self.store.root.mkdir(parents=True, exist_ok=True)
        runs.remember(self.store, self.out, self.keys)
        damaged = [(cell.node, text) for cell in self.board.cells.values() if (text := self.repairs.look(cell))]
        self.grow()
        self.view.start(self.board)
        for node, text in damaged:
            self.note(node, text)
        if old := self.repairs.unsealed:
            self.note(old[0], f"{len(old)} artifacts were made before artifacts had digests: damage to them cannot be seen")
        try:
            if self.slots:
                self.in_processes()
            else:
                self.in_this_process()
        finally:
            self.stop()
            self.view.stop()

    def in_this_process(self) -> None:
        activate(self.plugins)
        while (node := self.next_ready()) or self.grow():
            if node is None:
                continue
            self.change(node.name, StageStatus.RUNNING)

            def report(done: float, total: float, _name: str = node.name, **shown: Any) -> None:
                self.board.move(_name, done, total, shown)
                self.view.tick()

            try:
                perform(as_job(node, self.keys), self.setting(), report, self.together)
            except Damaged as error:
                self.spoilt(node, Spoilt(error.key, error.what))
            except Pending as error:
                self.fail(node, one_line(error), StageStatus.WAITING)
            except Exception as error:
                self.fail(node, one_line(error))
            else:
                self.done(node)

    def in_processes(self) -> None:
        context = multiprocessing.get_context("forkserver")
        kinds = sorted({cell.node.kind for cell in self.board.cells.values() if cell.status is StageStatus.QUEUED})
        warm = [_WARM] if kinds and self.stages == STAGES else []
        context.set_forkserver_preload([*warm, _WORKER, self.stages, *(f"{self.stages}.{kind}" for kind in kinds)])
        while True:
            self.grow()
            while (node := self.next_ready()) and self.needed(node) <= len(self.slots):
                self.launch(context, node)
            if not self.running:
                if self.grow():  # what was found in the store just now may call for more
                    continue
                return
            multiprocessing.connection.wait([w.pipe for w in self.running.values()], timeout=_TICK)
            for worker in list(self.running.values()):
                self.listen(worker)
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
        busy = {w.node.key for w in self.running.values()}
        for cell in self.board.cells.values():
            if cell.status is not StageStatus.QUEUED or cell.node.key in busy:
                continue
            if all(self.board.cells[i].status.good for i in cell.node.needs):
                if not self.store.has(cell.node.key):
                    return cell.node
                self.change(cell.node.name, StageStatus.CACHED)  # an equal node, or another run, made it meanwhile
                return self.next_ready()
        return None

    def launch(self, context: Any, node: Node) -> None:
        count = self.needed(node)
        taken, self.slots = self.slots[:count], self.slots[count:]
        log = self.out / "logs" / f"{node.name}.log"
        devices = tuple(self.devices[slot % len(self.devices)] for slot in taken) if self.devices else ()
        here, there = context.Pipe(duplex=False)
        given = (as_job(node, self.keys), self.setting(log, devices), there)
        process = context.Process(target=work, args=given, name=node.name, daemon=False)
        with _environment(**dict.fromkeys(THREADS, str(self.threads)), TOKENIZERS_PARALLELISM="false"):
            process.start()
        there.close()  # so that the end of the worker is the end of the pipe
        self.running[node.name] = _Worker(process, here, node, taken, log)
        self.change(node.name, StageStatus.RUNNING)

    def needed(self, node: Node) -> int:
        """Slots that a node takes: one for each of its ranks; on processors no more than there are."""
        return min(world_size(node.spec), self.workers)

    def setting(self, log: Path | None = None, devices: tuple[str, ...] = ()) -> Setting:
        return Setting(
            store=self.store.root, stages=self.stages, threads=self.threads, log=log, devices=devices, plugins=self.plugins
        )

    def listen(self, worker: _Worker) -> None:
        """Reads what the worker has sent; a pipe that ends without a last word is a worker that died."""
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, Report):
                    self.board.move(worker.node.name, message.done, message.total, message.shown)
                elif isinstance(message, Note):
                    self.note(worker.node, message.text)
                else:
                    return self.close(worker, message)
        except (EOFError, OSError):
            worker.process.join()
            died = Failed(death(worker.process.exitcode or 0, "the worker", worker.log))
            self.close(worker, Finished() if self.store.has(worker.node.key) else died)

    def close(self, worker: _Worker, message: Finished | Failed | Spoilt | Waits) -> None:
        _end(worker.process)
        worker.pipe.close()
        del self.running[worker.node.name]
        self.slots = sorted([*self.slots, *worker.slots])
        if isinstance(message, Failed):
            self.fail(worker.node, message.error)
        elif isinstance(message, Waits):
            self.fail(worker.node, message.text, StageStatus.WAITING)
        elif isinstance(message, Spoilt):
            self.spoilt(worker.node, message)
        else:
            self.done(worker.node)

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
        """Ends what still runs (after Ctrl-C): asks first, then kills."""
        for worker in self.running.values():
            worker.process.terminate()
        for worker in list(self.running.values()):
            _end(worker.process)
            self.change(worker.node.name, StageStatus.STOPPED)
        self.running.clear()


def _end(process: ForkServerProcess) -> None:
    """Waits for a process that is ending; one that cannot (a library's stuck thread) is killed: its work is in the store."""
    process.join(_PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables for processes started inside (the fork server takes them at its start)."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
