"""Ranks that outlive their worker: nobody writes where they do before the last of them is gone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

from evenhand.runner.process import Setting
from evenhand.runner.worker import perform
from evenhand.store.locks import locked
from evenhand.store.store import Store
from tests.ranks.test_memory import job
from tests.stages.kill_matrix import fields_of


def worker(root: Path) -> None:
    setting = Setting(store=root, stages="tests.ranks.stopped_stages", threads=1, log=root / "log")
    perform(job("stop"), setting, lambda *_, **__: None)


def until(path: Path) -> int:
    """The number of the process that a file names, once it stands still."""
    while True:
        if path.exists() and (said := path.read_text()) and fields_of(int(said))[:1] == ["T"]:
            return int(said)
        time.sleep(0.01)


def test_a_rank_that_outlives_its_worker_keeps_its_folder(tmp_path):
    """It writes on for as long as it takes to notice: here it stands still, so that this is as long as we like."""
    store, key = Store(tmp_path), job("stop").key
    started = multiprocessing.get_context("forkserver").Process(target=worker, args=(tmp_path,))
    started.start()
    rank = until(store.partial(key) / "rank")
    os.kill(started.pid, signal.SIGKILL)
    started.join()
    kept = store.busy(key)
    os.kill(rank, signal.SIGKILL)
    assert kept, "another run would train in the folder that this rank writes in"
    with locked(tmp_path / f"{key}.lock"):  # once both are gone
        assert not store.has(key)
