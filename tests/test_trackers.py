"""Trackers: told each step once, while arms train and afterwards; a tool that fails ends nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from evenhand.cli import app
from evenhand.errors import UserError
from evenhand.runner.progress import Quiet
from evenhand.runner.state import StageStatus
from evenhand.runner.tracking import METRICS, Tracking, replay
from evenhand.store.store import Store
from evenhand.trackers import TRACKERS, TrackedRun
from evenhand.trackers.following import Followed, Memory
from evenhand.trackers.tools import missing_package

STEPS = [{"step": n, "loss": 1 / n, "stopped": None} for n in (1, 2, 3)]
KEY = "ab" * 8


def line(step: dict) -> str:
    return json.dumps(step) + "\n"


def told(out: Path) -> list[tuple[str, int, int]]:
    rows = [json.loads(text) for text in (out / METRICS).read_text().splitlines()]
    return [(row["arm"], row["seed"], row["step"]) for row in rows]


def tracking(out: Path, settings: str = "lines", view: object = None) -> Tracking:
    memory = Memory(out, settings)
    run = TrackedRun(experiment="e", arm="dpo", seed=0, out=out)
    followed = {"arms/dpo/seed-0": Followed(settings, run, memory.of(run.name, KEY))}
    return Tracking(view or Quiet(), followed, Store(out / "store"), memory)


class Board:
    """A board with one stage, and a clock that is set by hand."""

    def __init__(self, status: StageStatus = StageStatus.RUNNING) -> None:
        self.now = 100.0
        self.cell = SimpleNamespace(node=SimpleNamespace(name="arms/dpo/seed-0", key=KEY), status=status)
        self.cells = {self.cell.node.name: self.cell}

    def clock(self) -> float:
        return self.now


def test_a_run_is_told_while_it_trains_and_each_line_once(tmp_path: Path) -> None:
    seen, board = tracking(tmp_path), Board()
    metrics = seen.store.partial(KEY) / METRICS
    metrics.parent.mkdir(parents=True)
    seen.start(board)
    metrics.write_text(line(STEPS[0]) + line(STEPS[1])[:9])
    seen.tick()
    assert told(tmp_path) == [("dpo", 0, 1)], "half a line waits for its end"
    metrics.write_text(line(STEPS[0]) + line(STEPS[1]))
    seen.tick()
    assert len(told(tmp_path)) == 1, "files are looked at every few seconds"
    board.now += 10
    seen.tick()
    assert told(tmp_path) == [("dpo", 0, 1), ("dpo", 0, 2)]
    metrics.write_text("".join(map(line, STEPS)))
    metrics.parent.rename(seen.store.path(KEY))
    board.cell.status = StageStatus.DONE
    seen.changed(board.cell)
    seen.stop()
    assert told(tmp_path) == [("dpo", 0, n) for n in (1, 2, 3)]


def test_a_memory_that_cannot_be_written_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    view = SimpleNamespace(start=lambda board: None, tick=lambda: None, noted=lambda cell, text: notes.append(text))
    seen, board = tracking(tmp_path, view=view), Board()
    metrics = seen.store.partial(KEY) / METRICS
    metrics.parent.mkdir(parents=True)
    metrics.write_text(line(STEPS[0]))

    def full() -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(seen.memory, "write", full)
    seen.start(board)
    seen.tick()
    assert len(notes) == 1
    assert notes[0].startswith("the tracker failed (OSError: No space left on device)")


def test_a_run_that_goes_on_is_told_the_rest_and_one_of_another_key_anew(tmp_path: Path) -> None:
    metrics = Store(tmp_path / "store").partial(KEY) / METRICS
    metrics.parent.mkdir(parents=True)
    metrics.write_text("".join(map(line, STEPS[:2])))
    for kept in (STEPS[:2], STEPS[:1], STEPS):  # stopped, cut back to its checkpoint, trained to its end
        metrics.write_text("".join(map(line, kept)))
        seen = tracking(tmp_path)
        seen.start(Board())
        seen.stop()
    assert told(tmp_path) == [("dpo", 0, n) for n in (1, 2, 3)]
    run = TrackedRun(experiment="e", arm="dpo", seed=0, out=tmp_path)
    other = Followed("lines", run, Memory(tmp_path, "lines").of(run.name, "cd" * 8))
    other.drain(metrics)
    assert told(tmp_path) == [("dpo", 0, n) for n in (1, 2, 3)], "what an earlier artifact recorded is gone"


def test_a_tool_that_fails_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    class Broken:
        def __init__(self, run: TrackedRun) -> None: ...

        def log(self, metrics: dict) -> None:
            raise ConnectionError("no route to host")

        def close(self) -> None: ...

    class Noting(Quiet):
        notes: list[str] = []  # noqa: RUF012

        def noted(self, cell: object, text: str) -> None:
            self.notes.append(text)

    TRACKERS.register("broken")(Broken)
    try:
        view, board = Noting(), Board(StageStatus.CACHED)
        seen = tracking(tmp_path, "broken", view)
        metrics = seen.store.path(KEY) / METRICS
        metrics.parent.mkdir(parents=True)
        metrics.write_text("".join(map(line, STEPS)))
        seen.start(board)
        seen.tick()
        seen.stop()
    finally:
        del TRACKERS.entries["broken"]
    assert len(view.notes) == 1
    assert "ConnectionError: no route to host" in view.notes[0]
    assert "evenhand track RUN" in view.notes[0]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run directory with two trained arms."""
    for place in ("dpo/seed-0", "ipo/seed-1"):
        (tmp_path / "arms" / place).mkdir(parents=True)
        (tmp_path / "arms" / place / METRICS).write_text("".join(map(line, STEPS)))
    record = {"effective": {"name": "e"}, "nodes": [{"name": "arms/dpo/seed-0", "key": KEY}]}
    (tmp_path / "experiment.json").write_text(json.dumps(record))
    return tmp_path


def test_a_finished_run_is_told_from_its_first_step(finished: Path) -> None:
    for _ in range(2):  # told twice, kept once
        found = CliRunner().invoke(app, ["track", str(finished), "--tracker", "lines"], catch_exceptions=False)
        assert found.output == "lines was told of 2 runs: dpo/seed-0, ipo/seed-1\n"
        assert sorted(told(finished)) == [(arm, seed, n) for arm, seed in (("dpo", 0), ("ipo", 1)) for n in (1, 2, 3)]
    assert Memory(finished, "lines").of("dpo/seed-0", KEY).lines == 3, "a run that goes on is told what is new"


def test_a_run_without_a_tracker_says_how_to_name_one(finished: Path) -> None:
    with pytest.raises(UserError, match="names no tracker"):
        CliRunner().invoke(app, ["track", str(finished)], catch_exceptions=False)


def test_a_tool_that_is_not_installed_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (fault,) = missing_package({"kind": "wandb", "project": "p"})
    assert "wandb" in fault.what
    assert "evenhand[track]" in fault.fix
    assert not list(missing_package("lines"))


def test_tensorboard(finished: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        replay("tensorboard", "e", finished)
    events = EventAccumulator(str(finished / "tensorboard/dpo/seed-0")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert events.Tags()["scalars"] == ["loss"], "what is no number is not plotted"


def test_mlflow(finished: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    for _ in range(2):
        replay("mlflow", "e", finished)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{finished / 'mlflow.db'}")
    runs = {run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("e").experiment_id])}
    assert runs.keys() == {"dpo/seed-0", "ipo/seed-1"}
    history = client.get_metric_history(runs["ipo/seed-1"].info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


def test_wandb(finished: Path) -> None:
    pytest.importorskip("wandb")
    replay("wandb", "e", finished)
    files = sorted((finished / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2, "one offline run per arm and seed, to be synced when asked"
    assert all(file.stat().st_size > 0 for file in files)


def test_trackio(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(finished / "trackio"))
    trackio = pytest.importorskip("trackio")
    replay("trackio", "e", finished)
    api = trackio.Api()
    runs = {run.name: run for run in api.runs("e")}
    assert runs.keys() == {"dpo/seed-0", "ipo/seed-1"}
