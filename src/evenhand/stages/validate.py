"""Which of a run's weights are kept: the last, or those that do best on prompts set apart from training and from evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.methods import PROMPTS, Method
from evenhand.protocols import Reward
from evenhand.seeding import keyed
from evenhand.stages import offline, online
from evenhand.stages.splits import read_split
from evenhand.stages.training_run import FitSpec, TrainingRun
from evenhand.train import loop
from evenhand.train.best_checkpoint import Best
from evenhand.train.examples import micro_batches
from evenhand.train.rollouts.shaping import without_failed
from evenhand.types import Prompt

FILE = "selection.json"
"""In a fit's artifact: the rule, every point `{step, validation}`, the start's own number, and the step that was chosen."""


def held_out(spec: FitSpec, inputs: Mapping[str, Path], method: Method) -> frozenset[str]:
    """Ids of the prompts that validate, the same for every seed: none where the last weights are kept.

    They come from the prompts split where a reward decides, else from the split the method learns from; never from a held-out
    one, which belongs to the evaluation.
    """
    if spec.train.keep_checkpoint == "last":
        return frozenset()
    groups = read_split(inputs, PROMPTS) if spec.reward is not None else offline.learned_from(spec, inputs, method)
    ids = sorted({g.prompt.id for g in groups}, key=lambda name: keyed("validation", name))
    count = spec.train.validation_prompts
    if 2 * count > len(ids):
        raise UserError(
            f"validation asks for {count} of {len(ids)} prompts", where="train.validation_prompts",
            why="at least half of them must be left to learn from", fix=f"use at most {len(ids) // 2}",
        )  # fmt: skip
    return frozenset(ids[:count])


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """Measures the policy every `every` steps and at the end, and keeps the best weights."""

    best: Best
    measure: Callable[[], float]
    every: int
    prompts: int

    def due(self, step: int, steps: int) -> bool:
        return step % self.every == 0 or step == steps

    def as_json(self) -> dict[str, Any]:
        return {**self.best.as_json(), "every": self.every, "prompts": self.prompts}


def keeper(run: TrainingRun) -> Keeper | None:
    """What decides for this run; None where the last weights are kept."""
    if not run.held:
        return None
    rollouts = run.method.rollouts
    every = run.spec.train.validate_every or (rollouts.schedule.updates if rollouts is not None else run.steps)
    if run.reward is None:
        rule = run.spec.train.choose_by
        return Keeper(best=Best(rule=rule), measure=on_held_rows(run, rule), every=every, prompts=len(run.held))
    prompts = [g.prompt for g in read_split(run.inputs, PROMPTS) if g.prompt.id in run.held]
    unique = list({p.id: p for p in prompts}.values())
    return Keeper(best=Best(rule="reward"), measure=mean_reward(run, run.reward, unique), every=every, prompts=len(unique))


def on_held_rows(run: TrainingRun, rule: str) -> Callable[[], float]:
    """The method's own loss on the rows of the validation prompts, counted as one step, or a metric beside it."""
    items = offline.held_items(run)
    batches = [b.to(run.device) for b in micro_batches(items, run.spec.train.tokens_per_microbatch, run.ranks.size)]

    def measure() -> float:
        found = loop.evaluate(run.model, run.objective, batches, run.temperature, run.memory, run.ranks)
        if not math.isfinite(value := found.get(rule, math.nan)):  # NaN is left out of the metrics
            raise UserError(
                f"the {rule} on the validation prompts is {value}", where="train.keep_checkpoint",
                why="the weights have diverged, or the loss of a validation row overflows",
                fix="lower train.learning_rate; metrics.jsonl shows the way there",
            )  # fmt: skip
        return value

    return measure


def mean_reward(run: TrainingRun, reward: Reward, prompts: Sequence[Prompt]) -> Callable[[], float]:
    """The mean training reward of one answer to every validation prompt, length penalties of the method taken off.

    Every measurement draws the same random numbers, so that two differ by the policy alone.
    """
    engine = online.counted_engine(run, run.model)
    config = run.spec.sampler(seed=keyed(run.seed, "validation"))
    plan = run.method.rollouts

    def measure() -> float:
        groups = engine.generate(prompts, 1, config, max_prompt=run.spec.setup.lengths.prompt)
        found = [without_failed(g, s) for g, s in zip(groups, reward(groups), strict=True)]
        scored = [replace(g, scores=s.values, parts=s.parts) for g, s in zip(groups, found, strict=True)]
        run.ledger.tokens_generated += sum(c.written for g in groups for c in g.completions)
        run.ledger.reward_calls += len(groups)
        finals = [(plan.shaping(g) if plan is not None else g).scores[0] for g in scored]
        known = [value for value in finals if value == value]
        if not known:
            raise UserError(
                "the reward scores no single answer", where="train.keep_checkpoint",
                why="it compares the answers of a group with each other, and so cannot compare one round with the next",
                fix="use `keep_checkpoint: last`, or a reward that scores each answer by itself",
            )  # fmt: skip
        return sum(known) / len(known)

    return measure
