"""A stage of several ranks as processes of this machine: started together, watched, and ended together.

One rank that dies would leave the others waiting for it. So nobody waits for a rank but the process that started them: when one
ends badly the others are ended too, and the one message is about the first cause. The stage's folder keeps its checkpoint.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import reduction
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from typing_extensions import override

from evenhand.errors import UserError
from evenhand.plugins import activate
from evenhand.runner import peak, stage
from evenhand.runner.job import Job
from evenhand.runner.process import Setting, begin
from evenhand.runner.worker_protocol import Failed, Finished, Note, Report, Sender, death, one_line, relay_warnings
from evenhand.stages.context import StageContext
from evenhand.stages.setup import Compute
from evenhand.train.memory import StepTooLarge
from evenhand.train.ranks import Ranks

Work = Callable[[Ranks, Path, Callable[..., None]], None]
"""What a rank does: it is given its place, a folder that is thrown away, and `report`."""
WARM = ("evenhand.runner.preload", "evenhand.stages.fit", "evenhand.train.distributed")
GRACE = 5.0
"""Seconds that ranks have to say how they ended after the first one did badly; the cause may not be the first to be heard."""
PEER = ("connection closed by peer", "connection reset by peer", "gloo", "nccl")
"""Words of errors that only say that another rank is gone."""
AGAIN = "give the same command again: it goes on from the last checkpoint"
_log = logging.getLogger(__name__)


def together(job: Job, setting: Setting, context: StageContext) -> int | None:
    """Runs a job's stage by its ranks; the peak of the memory of the one that held most.

    Where a micro-batch does not fit and `train.on_memory` asks for smaller ones, all begin again from the last checkpoint with
    half the size. Raises: UserError where a rank fails.
    """
    while True:
        work = partial(_stage, job, setting.stages, context.inputs, context.out)
        try:
            return started(work, job.spec.setup.compute, setting, context.report, context.lock)
        except StepTooLarge as error:
            if error.smaller is None:
                raise
            _log.warning("out of memory: micro-batches of at most %d tokens from here on", error.smaller)
            train = replace(job.spec.train, tokens_per_microbatch=error.smaller)
            job = replace(job, spec=replace(job.spec, train=train))


def _stage(
    job: Job, stages: str, inputs: Mapping[str, Path], out: Path, ranks: Ranks, scratch: Path, report: Callable[..., None]
) -> None:
    folder = out if ranks.first else scratch
    stage.run(job, stages, StageContext(seed=job.seed, inputs=inputs, out=folder, report=report, ranks=ranks))


@dataclass(slots=True)
class _Rank:
    """One process; `ended` is its last word, or how it died."""

    number: int
    process: ForkServerProcess
    pipe: Connection
    ended: Finished | Failed | None = None
    died: bool = False


def started(work: Work, compute: Compute, setting: Setting, report: Callable[..., None], lock: int | None = None) -> int | None:
    """`work` on `compute.world_size` processes, to its end; the peak of the memory of the one that held most.

    The processes hold `lock` (a descriptor of it) together with this one: should this one be killed, nobody else writes where
    they do before the last of them is gone. Raises: UserError that names the cause, after all of them have ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*WARM])
    held = None if lock is None else _Held(lock)
    with tempfile.TemporaryDirectory(prefix="evenhand-ranks-") as folder:
        ranks = []
        try:
            for number in range(compute.world_size):
                here, there = context.Pipe(duplex=False)
                place = _Place(number, compute, setting, Path(folder))
                process = context.Process(target=_rank, args=(work, place, there, held), name=f"rank {number}")
                process.start()
                there.close()  # so that the end of the process is the end of the pipe
                ranks.append(_Rank(number, process, here))
            _watch(ranks, setting, report)
        finally:
            for rank in ranks:
                rank.process.kill()
                rank.process.join()
    if (cause := _cause(ranks)) is not None:
        error = (UserError if cause.smaller is None else StepTooLarge)(
            cause.error, why=f"all {len(ranks)} ranks ended with it", fix=AGAIN
        )
        if isinstance(error, StepTooLarge):
            error.smaller = cause.smaller
        raise error
    return max((r.ended.peak_bytes or 0 for r in ranks if isinstance(r.ended, Finished)), default=0) or None


def _watch(ranks: Sequence[_Rank], setting: Setting, report: Callable[..., None]) -> None:
    """Passes on what ranks say until all have ended, or for a little while after one has ended badly."""
    until: float | None = None
    while waiting := {r.pipe: r for r in ranks if r.ended is None}:
        ready = multiprocessing.connection.wait(list(waiting), None if until is None else max(0.0, until - time.monotonic()))
        if not ready:
            return
        for pipe in ready:
            _listen(waiting[pipe], len(ranks), setting, report)  # type: ignore[index]
        if until is None and any(isinstance(r.ended, Failed) for r in ranks):
            until = time.monotonic() + GRACE


def _listen(rank: _Rank, size: int, setting: Setting, report: Callable[..., None]) -> None:
    try:
        message = rank.pipe.recv()
    except (EOFError, OSError):
        rank.process.join()
        rank.died = True
        rank.ended = Failed(death(rank.process.exitcode or 0, f"rank {rank.number} of {size}", setting.log))
        return
    if isinstance(message, Report):
        report(message.done, message.total, **message.shown)
    elif isinstance(message, Note):
        _log.warning("%s", message.text)
    else:
        rank.ended = message


def _cause(ranks: Sequence[_Rank]) -> Failed | None:
    """The first cause: a rank that was killed, else an error that is not about another rank, else any."""
    bad = [(r, r.ended) for r in ranks if isinstance(r.ended, Failed)]

    def late(one: tuple[_Rank, Failed]) -> tuple[bool, bool, int]:
        rank, ended = one
        return not rank.died, any(word in ended.error.lower() for word in PEER), rank.number

    return min(bad, key=late)[1] if bad else None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a process stands among its ranks; they meet in `folder`."""

    number: int
    compute: Compute
    setting: Setting
    folder: Path


@dataclass(frozen=True, slots=True)
class _Held:
    """A descriptor; a process that is started with it has a duplicate, open as long as it lives."""

    descriptor: int

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return _taken, (reduction.DupFd(self.descriptor),)


def _taken(given: Any) -> _Held:
    return _Held(given.detach())


def _rank(work: Work, place: _Place, pipe: Connection, held: _Held | None) -> None:
    """The main function of a rank. Only the first one's warnings and progress are passed on."""
    from evenhand.train import distributed

    compute, setting = place.compute, place.setting
    begin(setting, f"rank {place.number} of {compute.world_size}")
    if compute.device == "cpu":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all on this machine, whatever its name resolves to
    sender = Sender(pipe)
    if place.number == 0:
        relay_warnings(sender)
    else:
        logging.getLogger("evenhand").setLevel(logging.ERROR)  # all say the same
    scratch, meeting = place.folder / f"rank-{place.number}", place.folder / "meeting"
    scratch.mkdir()
    try:
        activate(setting.plugins)
        peak.begin()
        ranks = distributed.joined(meeting, place.number, compute.world_size, shard=compute.shard, device=compute.device)
        work(ranks, scratch, sender.report if ranks.first else _unheard)
        distributed.left()
    except Exception as error:
        traceback.print_exc()
        sender.send(Failed(one_line(error), smaller=getattr(error, "smaller", None)))
    else:
        sender.send(Finished(peak.reached()))
    finally:
        sender.close()


def _unheard(done: float, total: float, **shown: object) -> None:
    """Every rank is as far as the first."""
