"""Weights of steps on the way, kept in the artifact so that they can be judged like an arm."""

from __future__ import annotations

import shutil
from pathlib import Path

from evenhand.errors import UserError
from evenhand.methods import Method
from evenhand.stages.adapter import write_model
from evenhand.stages.training_run import TrainingRun
from evenhand.store import digests
from evenhand.train.config import Train

FOLDER = "snapshots"


def steps_of(train: Train, method: Method, steps: int) -> tuple[int, ...]:
    """The steps whose weights are kept, the last one left out: that is the arm itself.

    With "rounds" those after which a rollout of a method with rounds is used up.
    """
    if train.snapshots != "rounds":
        return tuple(sorted({step for step in train.snapshots if step < steps}))
    if not method.rounds or method.rollouts is None:
        return ()
    updates = method.rollouts.schedule.updates
    return tuple(range(updates, steps, updates))


def keep(run: TrainingRun, out: Path, step: int) -> None:
    """Writes the weights as they are after `step`; a half of an earlier try makes room."""
    folder = place(out, step)
    with run.ledger.phase("save"):
        if run.ranks.saves:
            shutil.rmtree(folder, ignore_errors=True)
            write_model(run.model, run.renderer, run.inputs.get("start"), folder)
            digests.seal(folder)  # it is not written again by a run that goes on from a later checkpoint


def place(artifact: Path, step: int) -> Path:
    return artifact / FOLDER / f"step-{step}"


def kept(artifact: Path, step: int) -> Path:
    """The snapshot as an artifact with a model; UserError where training ended before it."""
    found = place(artifact, step)
    if not found.is_dir():
        raise UserError(
            f"there are no weights of step {step}", where="train.snapshots", why="training ended before",
            fix="name earlier steps, or loosen `stop_when`",
        )  # fmt: skip
    return found
