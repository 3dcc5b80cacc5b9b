"""Checks of settings and of the machine: rates, penalties, versions, disk, cores."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from inspect import signature
from pathlib import Path

from safetensors import safe_open

from evenhand.display import in_bytes
from evenhand.doctor.context import CheckContext
from evenhand.doctor.forward_probe import longest_batch, step
from evenhand.doctor.opened import Unavailable
from evenhand.doctor.registry import Finding, check, fail, info, warn
from evenhand.methods import METHODS
from evenhand.models.adapter_config import RATE
from evenhand.runner import peak
from evenhand.spec.reward_resolution import models_in, resolved_reward
from evenhand.stages.training_run import FitSpec
from evenhand.store.whole import existing, unwritable

TESTED = {"torch": (2, 9), "transformers": (5, 10)}
"""The oldest versions that the tests run with."""
ON_A_PROCESSOR = 1024
"""Tokens of the step that is tried on a processor, where it takes minutes and `--plan` knows the memory of a whole one."""
LARGE = 100e6
"""Parameters from which on the usual ranges of learning rates hold; smaller models take larger rates."""
SPREAD = 20.0
"""A rate this many times its method's default is outside of what papers use."""


@check(
    "B1",
    "the longest step fits into memory",
    why="a run that ends for want of memory mostly does so hours later, at its longest row",
    fix="lower `train.tokens_per_microbatch` or `lengths`, or set `train.gradient_checkpointing`",
    quick=False,
)
def longest_step(patient: CheckContext) -> Iterator[Finding]:
    rows = patient.rows(limit=64)
    if not rows:
        raise Unavailable("there is nothing to train on yet")
    asked = max(arm.train.tokens_per_microbatch for arm in patient.arms.values())
    batch = longest_batch(rows, asked if patient.policy.device.type == "cuda" else min(asked, ON_A_PROCESSOR))
    seconds = step(patient.policy, batch)
    tokens = batch.layout.total
    fewer = "" if asked <= tokens or patient.policy.device.type == "cuda" else f" (a micro-batch may hold {asked}: see --plan)"
    yield info(
        f"forward and backward of {tokens} tokens took {seconds:.2f} s ({tokens / seconds:.0f} tokens/s); "
        f"peak {(peak.reached() or 0) / 2**30:.2f} GiB{fewer}"
    )


@check(
    "B2",
    "the disk has room",
    why="a full disk ends a run at its last step, when the model is written",
    fix="free some space, or point `runtime.store` to a larger disk",
)
def disk(patient: CheckContext) -> Iterator[Finding]:
    run = patient.run
    size = 4 * _parameters(patient)  # bytes in float32, as a model is trained and saved on a processor
    to_run = [n.spec for n in run.plan.nodes if isinstance(n.spec, FitSpec) and not run.store.has(n.key)]
    whole = [spec for spec in to_run if spec.train.adapter is None]  # what an adapter leaves is small beside a model
    need = size * (len(whole) + 3 * min(run.workers or 1, len(whole)))  # a checkpoint has two moments beside the weights
    free = shutil.disk_usage(existing(run.store.root)).free
    if need > free:
        yield fail(f"{len(whole)} models of {in_bytes(size)} need {in_bytes(need)}, {in_bytes(free)} are free")


@check(
    "B3",
    "what the run will do",
    why="a budget is best known before it is spent",
    fix="`evenhand run EXPERIMENT --plan` lists every stage",
)
def amount(patient: CheckContext) -> Iterator[Finding]:
    seeds = len(patient.experiment.seeds)
    for name, arm in patient.arms.items():
        budget = f"{arm.train.steps} steps" if arm.train.steps is not None else f"{arm.train.epochs:g} epochs"
        rollouts = patient.methods[name].rollouts
        sampled = f", {rollouts.completions_per_prompt} answers each" if rollouts else ""
        times = f" x {seeds} seeds" if arm.per_seed and seeds > 1 else ""
        yield info(f"{name} ({arm.method}): {budget} of {arm.train.prompts_per_step} prompts{sampled}{times}")
    if seeds < 3:
        yield info(f"{seeds} seed{'s' if seeds > 1 else ''}: three or more show how far training itself scatters")


@check(
    "B4",
    "versions are ones that were tested",
    why="other versions of these libraries compute other things under the same names",
    fix="install the versions that `evenhand env` shows in a fresh environment",
)
def versions(patient: CheckContext) -> Iterator[Finding]:
    for name, oldest in TESTED.items():
        have = version(name)
        if tuple(int(p) for p in have.split("+")[0].split(".")[:2]) < oldest:
            yield fail(f"{name} is {have}, the oldest that is tested is {'.'.join(map(str, oldest))}")


@check(
    "B5",
    "results can be written",
    why="a folder that cannot be written to is found out when there is something to lose",
    fix="choose another `--out` or `runtime.store`",
)
def writable(patient: CheckContext) -> Iterator[Finding]:
    for path in {patient.run.out, patient.run.store.root}:
        if why := unwritable(path):
            yield fail(f"{path} cannot be written to: {why}")


@check(
    "B7",
    "learning rates are of the usual size",
    why="a rate copied from another method ruins a model in a few steps: preference methods take a tenth to a hundredth of SFT's",
    fix="leave `learning_rate` out to use the method's own",
)
def rates(patient: CheckContext) -> Iterator[Finding]:
    large = _parameters(patient) > LARGE
    for name, arm in patient.arms.items():
        rate, usual = arm.learning_rate, patient.methods[name].learning_rate
        adapter = arm.train.adapter is not None
        usual *= RATE if adapter else 1.0
        if rate <= 0 or not rate < 1:
            yield fail(f"{name}: a learning rate of {rate:g} learns nothing, or ruins everything")
        elif large and not 1 / SPREAD <= rate / usual <= SPREAD:
            yield warn(
                f"{name}: learning rate {rate:g}; {arm.method}{' with an adapter' * adapter} usually takes about {usual:g}"
            )
        if arm.train.warmup == 1:
            yield fail(f"{name}: `warmup: 1` takes every step, so that the learning rate is never reached")


@check(
    "B8",
    "a learned reward is kept on a leash",
    why="without a penalty for leaving the start, a policy finds what a reward model is wrong about",
    fix="set `kl` above 0, or mean it and watch the judge's curve",
)
def leash(patient: CheckContext) -> Iterator[Finding]:
    for name, arm in patient.online.items():
        learned = models_in(resolved_reward(arm.reward, patient.experiment))
        # a method whose paper has no KL (Dr.GRPO, DAPO, ...) is not asked why it has none
        usual = signature(METHODS[arm.method]).parameters.get("kl")
        if (
            learned and arm.parameters.get("kl") == 0 and usual is not None and usual.default
        ):  # published without one: its own risk
            yield warn(f"{name} follows the reward model {', '.join(sorted(learned))} with kl: 0")
        if arm.parameters.get("beta", None) == 0:
            yield fail(f"{name}: beta is 0")


@check(
    "B9",
    "workers have cores",
    why="more threads than cores wait for each other; a run can take several times as long",
    fix="lower `runtime.workers` or `runtime.threads`",
)
def cores(patient: CheckContext) -> Iterator[Finding]:
    runtime = patient.experiment.runtime
    have = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    asked = (runtime.workers or 1) * runtime.threads
    if asked > 2 * have:
        yield warn(f"{runtime.workers or 1} workers of {runtime.threads} threads on {have} cores")


def _parameters(patient: CheckContext) -> float:
    """Parameters, from the sizes of the weight files or the shape in the config; 0 when neither is here."""
    if patient.experiment.model.path is not None and isinstance(patient.home, Path):
        total = 0
        for file in patient.home.glob("*.safetensors"):
            with safe_open(str(file), "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (not a mapping)
                    size = 1
                    for n in tensors.get_slice(key).get_shape():
                        size *= n
                    total += size
        return float(total)
    if patient.experiment.model.path is None:
        c = patient.config
        return float(
            c.vocab_size * c.hidden_size + c.num_hidden_layers * (4 * c.hidden_size**2 + 3 * c.hidden_size * c.intermediate_size)
        )
    return 0.0
