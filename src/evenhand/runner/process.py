"""What every process of a runner is told, and does first."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path

from evenhand.plugins import Plugin

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables that fix the number of threads of libraries loaded later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where and how a worker works. `stages` is the module with `STAGES`; `devices` the names of its CUDA devices, none for all.

    `plugins` are imported before the stage runs. Without a `log` it says everything where its parent does.
    """

    store: Path
    stages: str
    threads: int
    log: Path | None = None
    devices: tuple[str, ...] = ()
    plugins: tuple[Plugin, ...] = ()


def begin(setting: Setting, name: str) -> None:
    """Ends with its parent, writes into the log, and has its own threads and devices."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the scheduler decides
    _end_with_parent()
    if setting.log is not None:
        _into_log(setting.log, name)
    _use(setting)


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
    """A fixed number of threads: bytes must not depend on the machine's cores. Its devices, if the scheduler chose some."""
    if setting.devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(setting.devices)
    for name in THREADS:
        os.environ[name] = str(setting.threads)
    if "torch" in sys.modules:  # imported by the fork server, before the variables were set
        sys.modules["torch"].set_num_threads(setting.threads)
