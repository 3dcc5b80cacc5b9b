"""Stages of a plan, run in this process: one by one, to their end, or killed on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from evenhand.plan import plan
from evenhand.spec.read import read_experiment
from evenhand.stages import STAGES, fit
from evenhand.stages.context import StageContext, unreported
from evenhand.stages.setup import Compute, Setup
from evenhand.stages.training_run import TrainingRun
from evenhand.train.config import Lengths
from evenhand.train.cost_accounting import Ledger

SMALL = """
initial_policy: base
baseline: start
data:
  world: quickstart
  sizes: {demonstrations: 8, preferences: 40, prompts: 24, heldout_preferences: 8}
model: {pretrain: {documents: 32, train: {steps: 6, prompts_per_step: 8, learning_rate: 3.0e-3}}}
lengths: {prompt: 32, completion: 8}
"""
"""The top of an experiment: a small world, and a base made in six steps."""


def perform(
    kind: str, spec: Any, inputs: Mapping[str, Path], out: Path, *, seed: int = 0, report: Callable[..., None] = unreported
) -> Path:
    """The stage's artifact, in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    STAGES[kind](spec, StageContext(seed=seed, inputs=inputs, out=out, report=report))
    return out


def setup(prompt: int = 32, completion: int = 12, *, dtype: str = "float32", **named: Any) -> Setup:
    """How a stage opens models in these tests."""
    return Setup(compute=Compute(device="cpu", dtype=dtype), lengths=Lengths(prompt=prompt, completion=completion), **named)


class Killed(Exception):
    pass


class Graph:
    """The stages of the experiment `text`, each made when it is asked for; side by side, as in a store."""

    def __init__(self, folder: Path, text: str) -> None:
        torch.set_num_threads(1)
        self.plan = plan.build(read_experiment(text).value)
        self.folder = folder
        self.done: dict[str, Path] = {}

    def run(self, name: str, out: Path | None = None, report: Callable[..., None] = unreported) -> Path:
        if out is None and name in self.done:
            return self.done[name]
        node = self.plan[name]
        made = perform(node.kind, node.spec, self.inputs(name), out or self.folder / node.key, seed=node.seed, report=report)
        if out is None:
            self.done[name] = made
        return made

    def inputs(self, name: str) -> dict[str, Path]:
        return {role: self.run(other) for role, other in self.plan[name].inputs.items()}

    def arm(self, name: str) -> Path:
        return self.run(self.plan.arms[name][0])

    def opened(self, name: str, seed: int | None = None) -> TrainingRun:
        """An arm before its first step."""
        node = self.plan[self.plan.arms[name][0]]
        context = StageContext(seed=node.seed if seed is None else seed, inputs=self.inputs(node.name), out=self.folder)
        return fit.open_run(node.spec, context, "cpu", Ledger())

    def kill(self, name: str, out: Path, *steps: int) -> None:
        """Runs an arm's stage in `out`, killed after each of these steps and started again; the last time it stays dead."""
        for step in steps:

            def report(done: float, total: float, _step: int = step, **shown: Any) -> None:
                if done == _step:
                    raise Killed

            with pytest.raises(Killed):
                self.run(self.plan.arms[name][0], out, report)

    def differing(self, name: str, out: Path, *files: str) -> list[str]:
        """Runs an arm's stage in `out`, where it may have been killed, to its end: the files that are not those of one go."""
        whole = self.arm(name)
        self.run(self.plan.arms[name][0], out)
        return [file for file in files if (out / file).read_bytes() != (whole / file).read_bytes()]
