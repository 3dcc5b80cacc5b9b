from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_stages import Node, chain_plan, chain_result, plan

from evenhand.errors import UserError
from evenhand.runner import worker
from evenhand.runner.local import default_workers, run
from evenhand.runner.state import RunState, StageState, StageStatus
from evenhand.store.store import Store

SCRIPT = Path(__file__).parent / "run_forever.py"
HUNG = 600.0
"""Seconds after which a process is taken to hang, however busy the machine is: no test is about a time."""


class Watch:
    """Remembers every change of status."""

    def __init__(self):
        self.seen: list[tuple[str, str]] = []
        self.notes: list[str] = []

    def start(self, board: RunState) -> None:
        self.board = board

    def changed(self, cell: StageState) -> None:
        self.seen.append((cell.node.name, str(cell.status)))

    def noted(self, cell: StageState, text: str) -> None:
        self.notes.append(text)

    def tick(self) -> None: ...

    def stop(self) -> None: ...


def go(nodes, out, *, store=None, **named):
    view = Watch()
    outcome = run(nodes, Store(store or out / "store"), out, stages="fake_stages", view=view, **{"workers": 2, **named})
    return outcome, view


def results(store, nodes):
    return {n.name: (store.path(n.key) / "chain.txt").read_text() for n in nodes.nodes if store.has(n.key)}


def expected():
    start = chain_result(0)
    return {"start": start, "arms/a/seed-1": chain_result(1, start), "arms/a/seed-2": chain_result(2, start)}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_node_is_made_from_its_inputs(tmp_path, workers):
    nodes = chain_plan("", 0)
    outcome, view = go(nodes, tmp_path, workers=workers)
    assert outcome.ok
    assert results(Store(tmp_path / "store"), nodes) == expected()
    assert view.seen[:2] == [("start", "running"), ("start", "done")], "arms wait for what they start from"
    assert set(outcome.seconds) == set(expected())


def test_a_second_run_runs_nothing(tmp_path):
    trace = tmp_path / "trace"
    nodes = chain_plan(str(trace), 0)
    go(nodes, tmp_path)
    before = trace.read_text()
    outcome, view = go(nodes, tmp_path)
    assert set(outcome.status.values()) == {StageStatus.CACHED}
    assert outcome.ok
    assert view.seen == []
    assert trace.read_text() == before


def test_equal_nodes_are_made_once(tmp_path):
    trace = tmp_path / "trace"
    nodes = plan(*[Node(name=n, kind="chain", spec={"steps": 3, "trace": str(trace)}) for n in ("a", "b")])
    outcome, _ = go(nodes, tmp_path)
    assert outcome.status == {"a": StageStatus.DONE, "b": StageStatus.CACHED}
    assert len(trace.read_text().splitlines()) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failed_cell_stops_only_what_depends_on_it(tmp_path, workers):
    nodes = plan(
        Node(name="data", kind="chain", spec={"steps": 1}),
        Node(name="bad", kind="fail", inputs={"d": "data"}),
        Node(name="refused", kind="refuse", inputs={"d": "data"}),
        Node(name="good", kind="chain", spec={"steps": 2}, inputs={"d": "data"}),
        Node(name="after/bad", kind="chain", spec={"steps": 1}, inputs={"x": "bad"}),
        Node(name="after/after", kind="chain", spec={"steps": 1}, inputs={"x": "after/bad", "y": "good"}),
        Node(name="after/good", kind="chain", spec={"steps": 1}, inputs={"x": "good"}),
    )
    outcome, _ = go(nodes, tmp_path, workers=workers)
    assert {n: str(s) for n, s in outcome.status.items()} == {
        "data": "done", "bad": "failed", "refused": "failed", "good": "done",
        "after/bad": "blocked", "after/after": "blocked", "after/good": "done",
    }  # fmt: skip
    assert not outcome.ok
    assert list(outcome.errors.items()) == [
        ("bad", "RuntimeError: the stage broke"),
        ("refused", "data.jsonl:3: rows are empty; fix: remove them"),
        ("after/bad", "needs bad, which failed"),
        ("after/after", "needs bad, which failed"),
    ]


def test_the_log_has_the_traceback_and_what_was_printed(tmp_path):
    nodes = plan(Node(name="a/bad", kind="fail"), Node(name="good", kind="chain", spec={"steps": 1}))
    go(nodes, tmp_path)
    log = (tmp_path / "logs" / "a" / "bad.log").read_text()
    assert "Traceback" in log
    assert "in fail" in log
    assert "chain complete" in (tmp_path / "logs" / "good.log").read_text()


def test_a_stages_warnings_are_told_once_and_logged_each_time(tmp_path):
    nodes = plan(*[Node(name=f"w{seed}", kind="warn", seed=seed) for seed in range(2)])
    _, view = go(nodes, tmp_path)
    assert view.notes == ["3 rows left out"]
    for seed in range(2):
        log = (tmp_path / "logs" / f"w{seed}.log").read_text()
        assert "3 rows left out" in log
        assert "a library's own affair" in log


DEATHS = [(signal.SIGKILL, "killed by SIGKILL (often: out of memory"), (signal.SIGSEGV, "killed by SIGSEGV")]


@pytest.mark.parametrize(("number", "said"), DEATHS)
def test_a_worker_that_dies_is_a_failed_cell(tmp_path, number, said):
    dies = Node(name="dies", kind="die", spec={"signal": int(number)})
    nodes = plan(dies, Node(name="good", kind="chain", spec={"steps": 2}))
    outcome, _ = go(nodes, tmp_path)
    assert outcome.status == {"dies": StageStatus.FAILED, "good": StageStatus.DONE}
    assert said in outcome.errors["dies"]


@contextmanager
def an_arm_killed(folder):
    """The plan of chains, and their trace; while it is run the first arm's worker is killed at its fifth step."""
    trace, hold = folder / "trace", folder / "hold"
    hold.write_text("[[1], 4]")  # where it waits until then

    def kill_an_arm():
        wait_until(lambda: reached(trace, 1, 4))
        os.kill(reached(trace, 1, 4)[0], signal.SIGKILL)
        hold.unlink()

    killer = threading.Thread(target=kill_an_arm)
    killer.start()
    yield chain_plan(str(trace), 0, hold=str(hold)), trace
    killer.join()


def test_a_killed_worker_resumes_in_the_next_run(tmp_path):
    with an_arm_killed(tmp_path) as (nodes, trace):
        outcome, _ = go(nodes, tmp_path)
    assert outcome.status["arms/a/seed-1"] is StageStatus.FAILED
    assert outcome.status["arms/a/seed-2"] is StageStatus.DONE
    again, _ = go(nodes, tmp_path)
    assert again.status["arms/a/seed-1"] is StageStatus.DONE
    assert again.status["arms/a/seed-2"] is StageStatus.CACHED
    assert results(Store(tmp_path / "store"), nodes) == expected()
    times = Counter(line.split()[2] for line in trace.read_text().splitlines() if line.split()[1] == "1")
    assert set(times) == {str(step) for step in range(12)}
    assert sum(times.values()) <= 13, "at most the step that was under way is run again"


def test_a_thousand_stages_that_another_run_has_made_meanwhile(tmp_path):
    nodes = plan(*[Node(name=f"n{i}", kind="fail", seed=i) for i in range(1100)])
    store = Store(tmp_path / "store")

    class AnotherRun(Watch):
        def start(self, board):
            for node in nodes.nodes:
                store.path(node.key).mkdir()

    outcome = run(nodes, store, tmp_path, workers=0, stages="fake_stages", view=AnotherRun())
    assert set(outcome.status.values()) == {StageStatus.CACHED}


def test_a_store_that_cannot_be_written_is_said_with_a_way_out(tmp_path, monkeypatch):
    def read_only(*given):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "run-1.json.7.partial")

    monkeypatch.setattr("evenhand.store.runs.write_json", read_only)
    with pytest.raises(UserError, match="the store cannot be written: Read-only file system") as caught:
        go(plan(Node(name="a", kind="chain")), tmp_path, workers=0)
    assert caught.value.where == str(tmp_path / "store")


def test_a_stage_that_is_stopped_in_this_process_is_shown_as_stopped(tmp_path, monkeypatch):
    def stopped(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "perform", stopped)
    view = Watch()
    with pytest.raises(KeyboardInterrupt):
        run(plan(Node(name="a", kind="chain")), Store(tmp_path / "store"), tmp_path, workers=0, stages="fake_stages", view=view)
    assert view.seen == [("a", "running"), ("a", "stopped")]


def test_fixed_threads_reach_the_worker(tmp_path):
    nodes = plan(Node(name="e", kind="environment"))
    go(nodes, tmp_path, threads=3)
    assert results(Store(tmp_path / "store"), nodes) == {"e": "3"}


def test_workers_fill_the_cores_or_the_devices(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (default_workers(1), default_workers(3), default_workers(16)) == (8, 2, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert default_workers(1) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert default_workers(1) == 2


# --- the whole run is killed -----------------------------------------------------------------------------------------


def start(out, trace, pause="0.02", hold="", *runner):
    command = [sys.executable, str(SCRIPT), str(out), str(trace), pause, "2", *runner]
    named = {"env": {**os.environ, "EVENHAND_TEST_HOLD": str(hold)}, "start_new_session": True, "text": True}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **named)


def workers_of(trace):
    return {int(line.split()[0]) for line in trace.read_text().splitlines()} if trace.exists() else set()


def reached(trace, seed, step):
    """The processes that were at a step of a chain, the last one first."""
    rows = [line.split() for line in trace.read_text().splitlines()] if trace.exists() else []
    return [int(row[0]) for row in reversed(rows) if row[1:] == [str(seed), str(step)]]


def alive(pids):
    return [p for p in pids if Path(f"/proc/{p}/stat").exists() and Path(f"/proc/{p}/stat").read_text().split()[2] != "Z"]


def wait_until(condition, seconds=HUNG):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def killed_at(step, seeds, out, trace, hold, *runner):
    """A run that is killed once these chains are at that step; a dead run leaves no worker behind."""
    trace.touch()
    hold.write_text(json.dumps([seeds, step]))
    process = start(out, trace, "0", hold, *runner)
    wait_until(lambda: all(alive(reached(trace, seed, step)) for seed in seeds))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not alive(workers_of(trace)))


def goes_on_to_the_end(out, trace, *runner):
    process = start(out, trace, "0", "", *runner)
    assert process.wait(HUNG) == 0, process.stderr.read()
    assert results(Store(out / "store"), chain_plan("", 0)) == expected()


KILLS = [([0], 2), ([0], 9), ([1, 2], 1), ([1, 2], 6), ([1, 2], 10)]
"""Who waits at which step for the kill: the shared chain at its beginning and end, then both arms. One alone would let the other
one end before the kill, and a stage that has ended reaches no step again."""


def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path):
    trace, out = tmp_path / "trace", tmp_path / "out"
    for seeds, step in KILLS:
        killed_at(step, seeds, out, trace, tmp_path / "hold")
    goes_on_to_the_end(out, trace)
    folders = sorted(p.name for p in (out / "store").iterdir() if p.is_dir())  # a lock file may remain; it locks nothing
    assert folders == sorted(n.key for n in chain_plan("", 0).nodes)
    times = Counter(line.split(maxsplit=1)[1] for line in trace.read_text().splitlines())
    run_again = sum(times.values()) - len(times)
    assert run_again <= 4 * len(KILLS), (
        "a kill costs each of two workers its step, and at most one that was traced but not yet kept"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stopped_run_ends_its_workers_and_goes_on_later(tmp_path, number):
    trace, out = tmp_path / "trace", tmp_path / "out"
    hold = tmp_path / "hold"
    hold.touch()  # no stage goes past its first step before the signal, however busy the machine is
    process = start(out, trace, "0", hold)
    wait_until(lambda: len(workers_of(trace)) >= 2)
    if number is signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to every process of the group
        assert process.wait(HUNG) == 130, process.stderr.read()
        assert "Traceback" not in process.stderr.read()
    else:
        os.kill(process.pid, number)
        process.wait(HUNG)
    wait_until(lambda: not alive(workers_of(trace)))
    assert list((out / "store").glob("*.partial")), "the work is kept"
    goes_on_to_the_end(out, trace)


def test_two_runs_of_one_plan_share_the_work(tmp_path):
    trace, out = tmp_path / "trace", tmp_path / "out"
    first, second = start(out, trace), start(out, trace)
    assert (first.wait(HUNG), second.wait(HUNG)) == (0, 0), first.stderr.read() + second.stderr.read()
    assert results(Store(out / "store"), chain_plan("", 0)) == expected()
    steps = Counter(line.split(maxsplit=1)[1] for line in trace.read_text().splitlines())
    assert set(steps.values()) == {1}, "no step was run twice"
