"""Checks that train for a few steps: a reward that must rise, and a stop that must leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evenhand.doctor import smoke_run
from evenhand.doctor.context import CheckContext
from evenhand.doctor.opened import Unavailable
from evenhand.doctor.registry import Finding, check, fail, info, warn

if TYPE_CHECKING:
    from evenhand.spec.arms import Arm

STEPS, PROMPTS, ANSWERS = 12, 8, 8
"""A trial of learning: optimizer steps, prompts a step, and fresh answers per prompt before and after."""
RATE = 0.03
"""Learning rate of a trial: far above what is used, so that a dozen steps of a small new model show."""
RESUMED_AT = 2
"""The step in which a rehearsed run is stopped, of one more."""
BYTES = ("model/*.safetensors", "adapter/*.safetensors", "metrics.jsonl")
"""What a stop must leave as it would have been."""


@check(
    "G6",
    "a reward that is easy to raise rises",
    why="a wrong sign or mask, credit that cancels itself, or too strong a penalty leave a curve that looks like slow learning",
    fix="look at the arm's penalty (`kl`, `beta`), its clip and its credit; if they are usual, report it with `evenhand env`",
    quick=False,
)
def toy_reward(patient: CheckContext) -> Iterator[Finding]:
    from evenhand.stats.tests import permutation_test

    arms = one_per_method(patient)
    if not arms:
        raise Unavailable("nothing is sampled in training")
    for name, arm in arms.items():
        settings: dict[str, Any] = {
            "steps": STEPS,
            "prompts_per_step": PROMPTS,
            "learning_rate": RATE,
            "schedule": "constant",
            "schedule_parameters": {},
            "warmup": 0.0,
        }
        with smoke_run.rehearsed(patient, arm, smoke_run.elsewhere, **settings, checkpoint_every=0) as stage:
            before = np.array(smoke_run.toy_scores(stage, stage.inputs["start"], ANSWERS))
            after = np.array(smoke_run.toy_scores(stage, stage.run("trial"), ANSWERS))
        rose = after.mean() > before.mean() and permutation_test(after - before) < 0.05
        seen = (
            f"{name} ({arm.method}): the share of even token ids, as a reward, went from {before.mean():.2f} to "
            f"{after.mean():.2f} in {STEPS} steps of {PROMPTS} prompts"
        )
        yield info(seen) if rose else fail(f"{seen}, which is no rise")


@check(
    "B6",
    "a stopped run goes on as if nothing had happened",
    why="a resume that repeats or skips rows, or loses the optimizer's state, trains another model than the one that is reported",
    fix="report it, with the output of `evenhand env`; until then do not resume: delete the unfinished stage's folder",
    quick=False,
)
def resume(patient: CheckContext) -> Iterator[Finding]:
    arms = one_of_each_kind(patient)
    if not arms:
        raise Unavailable("nothing is trained")
    for name, arm in arms.items():
        steps = RESUMED_AT + 1
        with smoke_run.rehearsed(patient, arm, smoke_run.at_home, steps=steps, prompts_per_step=2, checkpoint_every=1) as stage:
            straight = stage.run("straight")
            stage.run("stopped", kill_at=RESUMED_AT)
            resumed = stage.run("stopped")
            different = [p for p in contents(straight) if contents(straight)[p] != contents(resumed).get(p)]
        said = f"{name}: {steps} steps, stopped in step {RESUMED_AT} and resumed"
        if not different:
            yield info(f"{said}: the same bytes as without a stop")
        elif patient.policy.device.type == "cpu":
            yield fail(f"{said}: not the same as without a stop", *different)
        else:
            yield warn(
                f"{said}: not the same bytes as without a stop", *different,
                why="accelerators add in an order of their own; on a processor the bytes are the same",
                fix="nothing is to be done if the curves agree",
            )  # fmt: skip


def one_per_method(patient: CheckContext) -> dict[str, Arm]:
    """The first arm of every method that samples."""
    found: dict[str, tuple[str, Arm]] = {}
    for name, arm in patient.online.items():
        found.setdefault(arm.method, (name, arm))
    return dict(found.values())


def one_of_each_kind(patient: CheckContext) -> dict[str, Arm]:
    """The first arm that learns from fixed data, and the first that samples."""
    arms = {n: a for n, a in patient.arms.items() if patient.split_of(a) in patient.splits or n in patient.online}
    arms = {n: a for n, a in arms.items() if n.startswith("arms.")} or arms
    fixed = [(n, a) for n, a in arms.items() if n not in patient.online]
    return dict([*fixed[:1], *list(patient.online.items())[:1]])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for pattern in BYTES for p in sorted(folder.glob(pattern))}
