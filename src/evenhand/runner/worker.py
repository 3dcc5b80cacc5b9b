"""What runs in a worker process: one node, from its inputs' folders to its own finished artifact."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from evenhand.errors import Pending, UserError
from evenhand.plugins import activate
from evenhand.runner import peak, ranks, stage
from evenhand.runner.job import Job
from evenhand.runner.process import Setting, begin
from evenhand.runner.worker_protocol import Failed, Finished, Sender, Spoilt, Waits, one_line, relay_warnings
from evenhand.stages.context import StageContext
from evenhand.store.spent import Spent, note
from evenhand.store.store import Damaged, Store

Together = Callable[[Job, Setting, StageContext], int | None]
"""Runs a stage of several ranks; the peak of the memory of the one that held most."""


def perform(job: Job, setting: Setting, report: Callable[..., None], together: Together = ranks.together) -> None:
    """Runs the node's stage in the store, unless another process just finished it; a stage of several ranks `together`.

    Raises: Damaged where an input is not what was made; UserError where memory ran out.
    """
    store = Store(setting.store)
    inputs = {role: store.require(key) for role, key in job.inputs.items()}
    with store.open(job.key, job.meta, lambda: report(0, 0, phase="waits for another run")) as folder:
        if folder is None:
            return
        context = StageContext(seed=job.seed, inputs=inputs, out=folder, report=report, lock=store.locks[job.key])
        note(store.root, job.key, watched(job, setting, context, together))


def watched(job: Job, setting: Setting, context: StageContext, together: Together) -> Spent:
    """Runs the stage; what it took."""
    began, computed = time.monotonic(), time.process_time()
    peak.begin()
    if job.ranks > 1:
        most = together(job, setting, context)
        return Spent(seconds=round(time.monotonic() - began, 3), peak_bytes=most)
    stage.run(job, setting.stages, context)
    seconds, processor_seconds = (round(t, 3) for t in (time.monotonic() - began, time.process_time() - computed))
    return Spent(seconds=seconds, processor_seconds=processor_seconds, peak_bytes=peak.reached())


def work(job: Job, setting: Setting, pipe: Connection) -> None:
    """The main function of a worker process. Its output goes to the log; its end is a message."""
    sender = Sender(pipe)
    try:
        sender.send(last_word(job, setting, sender))
    finally:
        sender.close()


def last_word(job: Job, setting: Setting, sender: Sender) -> Finished | Failed | Spoilt | Waits:
    """Runs the node in this process, which is its own from here on; how that ended."""
    begin(setting, job.name)
    relay_warnings(sender)
    return ended(job, setting, sender.report)


def ended(
    job: Job, setting: Setting, report: Callable[..., None], together: Together = ranks.together
) -> Finished | Failed | Spoilt | Waits:
    """Runs the node; how that ended. What is no message for a person is printed in full as well."""
    try:
        activate(setting.plugins)
        perform(job, setting, report, together)
    except Damaged as error:
        return Spoilt(error.key, error.what)
    except Pending as error:
        return Waits(one_line(error))
    except Exception as error:
        if not isinstance(error, UserError) or setting.log is not None:
            traceback.print_exc()
        return Failed(one_line(error))
    return Finished()
