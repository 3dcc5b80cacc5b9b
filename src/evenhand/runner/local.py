"""Runs a plan on this machine: nodes that are not in the store yet, each in a process, as many at once as there are workers."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING

from evenhand.errors import UserError
from evenhand.runner import ranks, timings
from evenhand.runner.job import Job, world_size
from evenhand.runner.process import THREADS, Setting
from evenhand.runner.progress import Quiet, View
from evenhand.runner.protocol import Growth, Outcome
from evenhand.runner.scheduler import Scheduler
from evenhand.runner.worker import Together, work
from evenhand.runner.worker_protocol import Died, Message, Note, Report, death
from evenhand.store.store import Store

if TYPE_CHECKING:
    from evenhand.plan.graph import Node
    from evenhand.plan.plan import Plan

STAGES = "evenhand.stages"
_WARM = "evenhand.runner.preload"
_WORKER = "evenhand.runner.worker"
"""What every worker imports: once, in the fork server, and not in each of them."""
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
    out, workers = Path(out), default_workers(threads) if workers is None else workers
    _check_devices(plan.nodes, workers)
    board = timings.board(plan.nodes, store.root, out, workers)
    setting = Setting(store=store.root, stages=stages, threads=threads, plugins=plan.plugins)
    crew = LocalCrew(workers, setting) if workers else None
    Scheduler(board, store, out, setting, view or Quiet(), crew=crew, more=more, together=together).run()
    timings.remember(board, out)
    return Outcome.of(board)


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
    slots: list[int]
    log: Path


class LocalCrew:
    """Processes of this machine, as many at once as there are workers, each with devices of its own where there are any."""

    def __init__(self, workers: int, setting: Setting) -> None:
        self.workers, self.setting, self.slots = workers, setting, list(range(workers))
        self.devices = cuda_devices()
        self.running: dict[str, _Worker] = {}
        self.context = multiprocessing.get_context("forkserver")

    def begin(self, kinds: Sequence[str]) -> None:
        stages = self.setting.stages
        warm = [_WARM] if kinds and stages == STAGES else []
        self.context.set_forkserver_preload([*warm, _WORKER, stages, *(f"{stages}.{kind}" for kind in kinds)])

    def room(self, node: Node) -> bool:
        return self.needed(world_size(node.spec)) <= len(self.slots)

    def needed(self, processes: int) -> int:
        """Slots that a stage takes: one for each of its ranks; on processors no more than there are."""
        return min(processes, self.workers)

    def launch(self, job: Job, log: Path) -> None:
        count = self.needed(job.ranks)
        taken, self.slots = self.slots[:count], self.slots[count:]
        devices = tuple(self.devices[slot % len(self.devices)] for slot in taken) if self.devices else ()
        here, there = self.context.Pipe(duplex=False)
        given = (job, replace(self.setting, log=log, devices=devices), there)
        process = self.context.Process(target=work, args=given, name=job.name, daemon=False)
        with _environment(**dict.fromkeys(THREADS, str(self.setting.threads)), TOKENIZERS_PARALLELISM="false"):
            process.start()
        there.close()  # so that the end of the worker is the end of the pipe
        self.running[job.name] = _Worker(process, here, taken, log)

    def heard(self, seconds: float) -> Iterator[tuple[str, Message]]:
        multiprocessing.connection.wait([w.pipe for w in self.running.values()], timeout=seconds)
        for name, worker in list(self.running.items()):
            for message in _said(worker):
                if not isinstance(message, Report | Note):
                    self.close(name)
                yield name, message

    def close(self, name: str) -> None:
        worker = self.running.pop(name)
        _end(worker.process)
        worker.pipe.close()
        self.slots = sorted([*self.slots, *worker.slots])

    def end(self) -> None:
        for worker in self.running.values():
            worker.process.terminate()
        for name in list(self.running):
            self.close(name)


def _said(worker: _Worker) -> Iterator[Message]:
    """What a worker has sent, up to its last word; a pipe that ends without one is a worker that died."""
    try:
        while worker.pipe.poll():
            yield (message := worker.pipe.recv())
            if not isinstance(message, Report | Note):
                return
    except (EOFError, OSError):
        worker.process.join()
        yield Died(death(worker.process.exitcode or 0, "the worker", worker.log))


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
