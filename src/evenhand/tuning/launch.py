"""From an experiment to `tune.json`, `tuned.yaml` and `tune.html`; the command line and Python users share this path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evenhand import run_experiment
from evenhand.errors import UserError
from evenhand.results.files import write_record
from evenhand.results.tuning_record import NAME, TuningRecord
from evenhand.run_experiment import Run
from evenhand.runner.progress import View
from evenhand.runner.state import RunState
from evenhand.tuning.study import Study
from evenhand.tuning.write import record, tuned_yaml

EXPERIMENT = "tuned.yaml"


@dataclass(frozen=True, slots=True)
class Tuning:
    """An experiment that is checked, its trials as far as they are known, and where it will go."""

    prepared: Run
    study: Study


def prepare(experiment: str, overrides: Sequence[str] = (), out: Path | None = None) -> Tuning:
    """Reads and checks; nothing is written. An experiment without a section `tune` gets its defaults."""
    path = run_experiment.locate(experiment)
    out = run_experiment.RUNS / f"{run_experiment.name_of(path)}-tune" if out is None else out
    prepared = run_experiment.prepare(experiment, overrides, out)
    if prepared.loaded.value.tune is None:
        prepared = run_experiment.prepare(experiment, [*overrides, "tune={}"], out)
    study = Study(prepared.loaded.value, prepared.store)
    if not study.spaces:
        raise UserError("no arm has anything to tune", where="tune", fix="add an arm that trains, or give it a space")
    return Tuning(prepared, study)


def execute(tuning: Tuning, *, workers: int | None = None, view: View | None = None) -> tuple[RunState, TuningRecord]:
    """Runs the trials and writes what they gave; returns the board as it ended, and the record `tune.json`."""
    out = tuning.prepared.out
    with run_experiment.working(tuning.prepared):
        board = _run(tuning, workers, view)
        found = record(tuning.study, board, tuning.prepared.loaded)
        write_record(out / NAME, found)
        (out / EXPERIMENT).write_text(tuned_yaml(tuning.prepared.loaded, tuning.study.experiment, found), encoding="utf-8")
    return board, found


def _run(tuning: Tuning, workers: int | None, view: View | None) -> RunState:
    """The trials' nodes become known one by one, so the plan begins empty; the last board is the one that saw them all."""
    prepared, boards = tuning.prepared, []

    def more(board: RunState) -> list[Any]:
        boards.append(board)
        return tuning.study(board)

    workers = prepared.workers if workers is None else workers
    plan = replace(prepared.plan, nodes=())
    runner = run_experiment.runner_of(prepared)
    runner(plan, prepared.store, prepared.out, workers=workers, threads=prepared.threads, view=view, more=more)
    return boards[-1]
