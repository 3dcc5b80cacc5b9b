from __future__ import annotations

import errno
import io
import os

import pytest
from fake_stages import Node
from rich.console import Console

from evenhand.plan.costs import keep
from evenhand.plan.costs.forecast import StageCost, StageForecast
from evenhand.runner import recording, timings
from evenhand.runner.progress import Lines, Matrix, Quiet, choose_view
from evenhand.runner.state import RunState, StageStatus
from evenhand.runner.worker_protocol import one_line, plain


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board(clock):
    arms = [Node(name=f"{a}/{s}", kind="fit", row=a, column=f"seed {s}", cost="9 steps") for a in ("dpo", "ppo") for s in (0, 1)]
    return RunState([Node(name="sft", kind="sft"), *arms], workers=2, clock=clock)


def test_time_left_follows_the_rate_since_the_first_report(board, clock):
    cell = board.set("sft", StageStatus.RUNNING)
    clock.now += 5
    board.move("sft", 40, 100, {})  # resumed at 40: the first 40 were not done in these 5 seconds
    assert cell.remaining(clock.now) is None
    clock.now += 10
    board.move("sft", 60, 100, {})
    assert cell.remaining(clock.now) == pytest.approx(20.0)  # 2 units a second, 40 left


def test_a_new_phase_starts_a_new_rate(board, clock):
    cell = board.set("sft", StageStatus.RUNNING)
    board.move("sft", 0, 10, {"phase": "data"})
    clock.now += 10
    board.move("sft", 10, 10, {"phase": "data"})
    board.move("sft", 0, 100, {"phase": "train"})
    assert cell.remaining(clock.now) is None
    clock.now += 1
    board.move("sft", 10, 100, {"phase": "train"})
    assert cell.remaining(clock.now) == pytest.approx(9.0)


def test_the_runs_time_left_shares_work_among_workers(board, clock):
    board.set("sft", StageStatus.RUNNING)
    clock.now += 3
    board.set("sft", StageStatus.DONE)
    assert board.eta() == (0.0, False), "no node of this kind has run: nothing can be said"
    board.set("dpo/0", StageStatus.RUNNING)
    board.set("dpo/1", StageStatus.RUNNING)
    board.move("dpo/0", 0, 10, {})
    clock.now += 10
    board.move("dpo/0", 5, 10, {})
    # dpo/0: 10 s left, so a fit takes 20 s; dpo/1: 10 s left; ppo: two of 20 s; two workers share 60 s
    assert board.eta() == (pytest.approx(30.0), True)


def test_the_time_left_is_no_shorter_than_the_longest_node(board, clock):
    for name in ("sft", "dpo/0", "dpo/1", "ppo/0"):
        board.set(name, StageStatus.CACHED)
    board.set("ppo/1", StageStatus.RUNNING)
    board.move("ppo/1", 0, 4, {})
    clock.now += 1
    board.move("ppo/1", 1, 4, {})
    assert board.eta() == (pytest.approx(3.0), True)


def test_earlier_runs_give_the_first_estimate(clock):
    board = RunState([Node(name="a", kind="fit"), Node(name="b", kind="fit")], workers=1, usual={"fit": 50.0}, clock=clock)
    assert board.eta() == (100.0, True)
    board.set("a", StageStatus.RUNNING)
    clock.now += 20
    assert board.eta() == (80.0, True)


def test_what_the_plan_predicted_is_the_estimate_until_a_node_of_the_kind_has_run(clock):
    nodes = [Node(name=name, kind=kind) for name, kind in (("a", "fit"), ("b", "fit"), ("c", "generate"), ("d", "judge"))]
    board = RunState(nodes, workers=1, forecast={"a": 300.0, "b": 500.0, "c": 40.0}, clock=clock)
    assert board.eta() == (840.0, False), "nobody predicts how long a judge takes"
    board.set("d", StageStatus.CACHED)
    board.set("a", StageStatus.RUNNING)
    clock.now += 100
    assert board.eta() == (740.0, True)
    board.set("a", StageStatus.DONE)
    assert board.eta() == (140.0, True), "a fit takes 100 s here"


def test_predictions_are_read_from_beside_the_store(tmp_path):
    node, other = Node(name="a", kind="fit", key="1"), Node(name="b", kind="fit", key="2")
    cost = StageCost(seconds=12.5, peak_bytes=1, tokens=1, disk_bytes=1)
    keep.keep_prediction(tmp_path, node.key, StageForecast(node="a", predicted=cost))
    keep.keep_prediction(tmp_path, other.key, StageForecast(node="b"))
    assert timings.forecast([node, other], tmp_path) == {"a": 12.5}


def lines(board, every=10.0):
    out = io.StringIO()
    view = Lines(Console(file=out, width=40), every=every)
    view.start(board)
    return view, lambda: [line[9:] for line in out.getvalue().splitlines()]


def test_lines_tell_starts_ends_and_errors(board, clock):
    view, told = lines(board)
    view.changed(board.set("dpo/0", StageStatus.RUNNING))
    clock.now += 75
    view.changed(board.set("dpo/0", StageStatus.DONE))
    view.changed(board.set("dpo/1", StageStatus.RUNNING))
    view.changed(board.set("dpo/1", StageStatus.FAILED, "[bold] is text, not markup, and long lines are not broken"))
    view.noted(board.cells["dpo/1"], "3 rows left out")
    view.changed(board.set("ppo/0", StageStatus.BLOCKED, "needs dpo/1, which failed"))
    assert told() == [
        "5 nodes, 0 cached, 2 at a time",
        "dpo/0: started (9 steps)",
        "dpo/0: done after 1m 15s",
        "dpo/1: started (9 steps)",
        "dpo/1: failed after 0 s: [bold] is text, not markup, and long lines are not broken",
        "dpo/1: note: 3 rows left out",
        "ppo/0: blocked: needs dpo/1, which failed",
    ]


def test_lines_report_a_running_node_about_every_ten_seconds(board, clock):
    view, told = lines(board)
    view.changed(board.set("dpo/0", StageStatus.RUNNING))
    for second in range(1, 26):
        clock.now += 1
        board.move("dpo/0", second, 50, {"phase": "generate", "reward": 1.23456, "step": 3})
        view.tick()
    # a fit takes 50 s at this rate; three more are queued for two workers; nothing is known of sft
    assert [line for line in told() if "%" in line] == [
        "dpo/0: generate 20% (10/50), 40 s left, reward 1.235, step 3; all: at least 1m 35s left",
        "dpo/0: generate 40% (20/50), 30 s left, reward 1.235, step 3; all: at least 1m 30s left",
    ]


def test_the_matrix_shows_every_state(board, clock):
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system=None, legacy_windows=False)
    view = Matrix(console)
    view.start(board)
    board.set("sft", StageStatus.CACHED)
    board.set("dpo/0", StageStatus.DONE)
    board.set("dpo/1", StageStatus.RUNNING)
    board.move("dpo/1", 37, 100, {"phase": "train", "loss": 0.5})
    board.set("ppo/0", StageStatus.FAILED, "boom")
    view.changed(board.cells["ppo/0"])
    board.set("ppo/1", StageStatus.BLOCKED)
    view.stop()
    shown = [line.rstrip() for line in out.getvalue().splitlines()]
    assert any("ppo/0 failed: boom" in line for line in shown)
    assert "shared  cached" in shown
    assert any(line.split() == ["dpo", "done", "▶", "37%"] for line in shown)
    assert any(line.split() == ["ppo", "failed", "blocked"] for line in shown)
    assert any("dpo/1" in line and "train 37% (37/100), loss 0.5" in line for line in shown)
    assert any("2 of 5 nodes, 1 failed" in line for line in shown)


def test_the_view_fits_where_it_is_shown():
    assert isinstance(choose_view(Console(file=io.StringIO())), Lines)
    assert isinstance(choose_view(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"})), Matrix)
    assert isinstance(choose_view(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})), Lines)
    assert isinstance(choose_view(Console(file=io.StringIO()), quiet=True), Quiet)


def test_figures_cross_processes_as_plain_values():
    import torch

    assert plain(torch.tensor(1.5)) == 1.5
    assert type(plain(torch.tensor(1.5))) is float
    assert [plain(v) for v in (3, "x", None, True)] == [3, "x", None, True]


def test_a_full_disk_is_said_whoever_wrote():
    for error in (OSError(28, "No space left on device"), RuntimeError("I/O error: No space left on device (os error 28)")):
        assert one_line(error).startswith("the disk is full; fix: free some space and give the same command again")
    limited = one_line(OSError(errno.EFBIG, os.strerror(errno.EFBIG)))
    assert limited.startswith("a file would be longer than this process may write; fix: raise the limit (`ulimit -f`) and give")
    assert one_line(OSError(5, "Input/output error")) == "OSError: [Errno 5] Input/output error"


def test_a_node_that_says_nothing_is_not_silent(board, clock):
    view, told = lines(board)
    view.changed(board.set("dpo/0", StageStatus.RUNNING))
    board.move("dpo/0", 0, 0, {"phase": "opens the model"})
    for _ in range(16):
        clock.now += 1
        view.tick()
    said = [line.partition(";")[0] for line in told() if "opens" in line]
    assert said == ["dpo/0: opens the model 5 s", "dpo/0: opens the model 15 s"]


def test_a_line_of_timings_that_was_cut_costs_itself_and_the_one_behind_it_alone(tmp_path):
    board = RunState([Node(name="a", kind="fit"), Node(name="b", kind="judge")], clock=Clock())
    for name in ("a", "b"):
        board.set(name, StageStatus.RUNNING)
        board.clock.now += 2
        board.set(name, StageStatus.DONE)
    timings.remember(board, tmp_path)
    file = tmp_path / "logs" / "timings.jsonl"
    file.write_bytes(file.read_bytes()[:-9])  # as a full disk leaves it
    timings.remember(board, tmp_path)
    assert timings.usual(tmp_path) == {"fit": 2.0, "judge": 2.0}


def test_a_disk_that_takes_no_record_ends_no_run_and_is_said_once(board, tmp_path, monkeypatch, caplog):
    def full(*given):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recording, "write_json", full)
    seen = recording.Recording(Quiet(), tmp_path)
    seen.start(board)
    seen.changed(board.set("sft", StageStatus.RUNNING))
    seen.stop()
    assert [r.message for r in caplog.records] == [
        f"{tmp_path / 'logs' / 'progress.json'} cannot be written (No space left on device): `evenhand watch` sees nothing new"
    ]
