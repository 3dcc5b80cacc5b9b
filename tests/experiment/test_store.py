from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import pytest

from evenhand.errors import UserError
from evenhand.store.locks import locked
from evenhand.store.store import Store

KEY, OTHER = "ab" * 16, "cd" * 16
META = {"name": "sft", "versions": {"evenhand": "1"}}
HUNG = 600.0
"""Seconds after which a process is taken to hang, however busy the machine is."""


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", reserve=0)


def make(store, key=KEY, text="x"):
    with store.open(key, META) as folder:
        (folder / "f.txt").write_text(text)


def fail(store, key):
    """Work that ends in an error after its first checkpoint."""

    def work():
        with store.open(key, META) as folder:
            (folder / "checkpoint").write_text("3")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()


def names(store):
    return sorted(p.name for p in store.root.iterdir())


def test_an_artifact_appears_when_it_is_finished(store):
    with store.open(KEY, META) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "f.txt").write_text("x")
        assert not store.has(KEY)
    assert store.has(KEY)
    assert (store.path(KEY) / "sub" / "f.txt").read_text() == "x"
    assert store.meta(KEY) == META
    assert names(store) == [KEY], "no partial folder and no lock are left"


def test_a_finished_artifact_is_not_made_again(store):
    make(store)
    with store.open(KEY, META) as folder:
        assert folder is None


def test_finished_files_cannot_be_written(store):
    make(store)
    assert (store.path(KEY) / "f.txt").stat().st_mode & 0o222 == 0


def test_an_exception_keeps_the_work_for_resume(store):
    fail(store, KEY)
    assert not store.has(KEY)
    with store.open(KEY, META) as folder:
        assert (folder / "checkpoint").read_text() == "3"
    assert store.has(KEY)


def test_an_exception_before_any_work_leaves_nothing(store):
    with pytest.raises(UserError), store.open(KEY, META):
        raise UserError("the data are empty")
    assert names(store) == []


def test_the_meta_of_equal_work_is_equal_and_a_change_of_versions_is_told(store):
    fail(store, KEY)
    with store.open(KEY, {**META, "versions": {"evenhand": "2"}}):
        pass
    assert store.meta(KEY) == {**META, "versions": {"evenhand": "2"}, "begun_with": {"evenhand": "1"}}


def test_what_a_kill_left_half_written_is_not_part_of_the_artifact(store):
    left = store.partial(KEY)
    fail(store, KEY)
    (left / "checkpoint").unlink()
    (left / ".model.x1").mkdir()
    (left / ".model.x1" / "model.safetensors").write_text("half")
    (left / "generations.jsonl.77.partial").write_text("half")
    with store.open(KEY, META) as folder:
        (folder / "model").mkdir()
        (folder / "model" / ".gitattributes").write_text("whole")
    assert sorted(str(p.relative_to(store.path(KEY))) for p in store.path(KEY).rglob("*")) == [
        "digests.json", "meta.json", "model", "model/.gitattributes",
    ]  # fmt: skip


def test_a_stage_may_empty_its_folder(store):
    with store.open(KEY, META) as folder:
        for path in folder.iterdir():
            path.unlink()
    assert store.meta(KEY) == META


@pytest.mark.parametrize("key", ["", "../x", "ABCDEF00", "ab", "g" * 16])
def test_only_keys_are_keys(store, key):
    with pytest.raises(ValueError, match="is not a key"):
        store.path(key)


def test_a_full_disk_is_said_before_work_begins(tmp_path):
    store = Store(tmp_path, reserve=10**18)
    with pytest.raises(UserError, match="MB are free"), store.open(KEY, META):
        pytest.fail("work began")


def test_a_lock_that_somebody_takes_away_by_hand_is_no_error_and_the_next_one_stays(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path):
        path.unlink()
    assert not path.exists()
    with locked(path):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


# --- several processes -----------------------------------------------------------------------------------------------

FORK = multiprocessing.get_context("fork")


def race(root, log, pause):
    with Store(root, reserve=0).open(KEY, META) as folder:
        if folder is not None:
            with open(log, "a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(pause)
            (folder / "f.txt").write_text(str(os.getpid()))


def test_of_racing_processes_one_works_and_all_see_the_result(store, tmp_path):
    log = tmp_path / "log"
    processes = [FORK.Process(target=race, args=(store.root, log, 0.1)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(HUNG)
        assert process.exitcode == 0
    workers = log.read_text().split()
    assert len(workers) == 1
    assert (store.path(KEY) / "f.txt").read_text() == workers[0]
    assert names(store) == [KEY]


def count(lock, counter, times):
    for _ in range(times):
        with locked(lock):
            value = int(counter.read_text())
            time.sleep(0.0005)
            counter.write_text(str(value + 1))


def test_the_lock_excludes_although_its_file_is_removed_each_time(tmp_path):
    (tmp_path / "counter").write_text("0")
    processes = [FORK.Process(target=count, args=(tmp_path / "lock", tmp_path / "counter", 50)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(HUNG)
        assert process.exitcode == 0
    assert (tmp_path / "counter").read_text() == "200"


def test_a_killed_process_frees_its_lock_and_keeps_its_work(store, tmp_path):
    process = FORK.Process(target=race, args=(store.root, tmp_path / "log", 60))
    process.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    assert store.busy(KEY)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not store.busy(KEY)
    assert json.loads((store.partial(KEY) / "meta.json").read_text()) == META
    make(store)
    assert store.has(KEY)


def work_until(root, begun, go):
    with Store(root, reserve=0).open(KEY, META):
        begun.set()
        assert go.wait(HUNG)


def test_who_waits_is_told(store):
    begun, go = FORK.Event(), FORK.Event()
    process = FORK.Process(target=work_until, args=(store.root, begun, go))
    process.start()
    assert begun.wait(HUNG)
    told = []
    with store.open(KEY, META, lambda: told.append(go.set())) as folder:  # it goes on once somebody waits
        assert folder is None
    process.join()
    assert len(told) == 1
