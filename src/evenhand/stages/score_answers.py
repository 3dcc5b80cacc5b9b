"""Answers as one reward model scores them: beside the verdicts, which do not wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from evenhand.data.jsonl import read_groups
from evenhand.protocols import Reward
from evenhand.stages.common import begin, build_reward, open_renderer
from evenhand.stages.context import StageContext
from evenhand.stages.judge import numbers
from evenhand.stages.setup import Setup
from evenhand.stages.training_samples import training_samples
from evenhand.store.whole import write_json
from evenhand.types import Group

ANSWERS = {"answers": "generations.jsonl", "samples": "samples.jsonl"}
"""Role of the input whose answers are scored -> its file. A third role is `arm`, a trained one: its samples of training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreAnswersSpec:
    """Every answer of the input `answers`, `samples` or `arm`, scored by the resolved `reward`.

    One reward model and one set of answers a stage: one that fails costs its own scores and nothing else, and another one beside
    it judges and scores nothing again.
    """

    KIND: ClassVar[str] = "score_answers"
    VERSION: ClassVar[int] = 1

    reward: Mapping[str, Any]
    setup: Setup


def run(spec: ScoreAnswersSpec, context: StageContext) -> None:
    device = begin(spec.setup.compute)
    groups = _scored(spec, context)
    context.report(0, len(groups))
    found = table(build_reward(spec.reward, context.inputs, spec.setup, device), groups)
    write_json(context.out / "scores.json", {"scores": found})


def _scored(spec: ScoreAnswersSpec, context: StageContext) -> list[Group]:
    inputs = context.inputs
    for role, file in ANSWERS.items():
        if role in inputs:
            return read_groups(inputs[role] / file)
    return [group for _, group in training_samples(inputs, open_renderer(inputs["arm"], spec.setup.template).stop_ids)]


def table(reward: Reward, groups: list[Group]) -> list[list[float | None]]:
    """[prompts][answers] of a reward; null where it could not score."""
    return [numbers(list(s.values)) for s in reward(groups)]
