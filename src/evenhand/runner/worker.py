"""What runs in a worker process: one node, from its inputs' folders to its own finished artifact."""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

from evenhand.errors import Pending, UserError
from evenhand.plugins import Plugin, activate
from evenhand.runner.job import Job
from evenhand.runner.worker_protocol import Failed, Finished, Sender, Spoilt, Waits, one_line, relay_warnings
from evenhand.stages.context import StageContext
from evenhand.store.store import Damaged, Store

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables that fix the number of threads of libraries loaded later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where and how a worker works. `stages` is the module with `STAGES`; `device` a CUDA device's name or None for all.

    `plugins` are imported before the stage runs."""

    store: Path
    stages: str
    threads: int
    log: Path
    device: str | None = None
    plugins: tuple[Plugin, ...] = ()


def perform(job: Job, store: Store, stages: str, report: Callable[..., None]) -> None:
    """Runs the node's stage in the store, unless another process just finished it.

    Raises: Damaged where an input is not what was made; UserError where memory ran out.
    """
    stage = importlib.import_module(stages).STAGES[job.kind]
    inputs = {role: store.require(key) for role, key in job.inputs.items()}
    with store.open(job.key, job.meta, lambda: report(0, 0, phase="waits for another run")) as folder:
        if folder is not None:
            try:
                stage(job.spec, StageContext(seed=job.seed, inputs=inputs, out=folder, report=report))
            except (MemoryError, RuntimeError) as error:
                raise _plainly(error, job) from error


def _plainly(error: Exception, job: Job) -> Exception:
    """A library's words for a lack of memory as a message; any other error as it is."""
    from evenhand.train.memory import ran_out

    if not ran_out(error):
        return error
    fix = "fewer --workers, shorter `lengths`, smaller `train.tokens_per_microbatch`, or `model: {dtype: bfloat16}`"
    return UserError("out of memory", where=job.name, why=str(error).partition("\n")[0][:200], fix=fix)


def work(job: Job, setting: Setting, pipe: Connection) -> None:
    """The main function of a worker process. Its output goes to the log; its end is a message."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the scheduler decides
    _end_with_parent()
    _into_log(setting.log, job.name)
    _use(setting)
    sender = Sender(pipe)
    relay_warnings(sender)
    try:
        activate(setting.plugins)
        perform(job, Store(setting.store), setting.stages, sender.report)
    except Damaged as error:
        sender.send(Spoilt(error.key, error.what))
    except Pending as error:
        sender.send(Waits(one_line(error)))
    except Exception as error:
        traceback.print_exc()
        sender.send(Failed(one_line(error)))
    else:
        sender.send(Finished())
    finally:
        sender.close()


def _end_with_parent() -> None:
    """When the scheduler dies, even by SIGKILL, its workers end too (they would hold locks and the machine)."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def _into_log(path: Path, name: str) -> None:
    """Everything this process prints, from Python or below it, goes to the log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (lives as long as the process)
    print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {name}", file=file)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file
    faulthandler.enable(file)


def _use(setting: Setting) -> None:
    """A fixed number of threads: bytes must not depend on the machine's cores. One device, if the scheduler chose one."""
    if setting.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = setting.device
    for name in THREADS:
        os.environ[name] = str(setting.threads)
    if "torch" in sys.modules:  # imported by the fork server, before the variables were set
        sys.modules["torch"].set_num_threads(setting.threads)
