"""A reward model's scores of held-out pairs; the statistics are taken from these, not here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from evenhand.evaluation.probes import probe
from evenhand.stages.common import begin, open_model_reward
from evenhand.stages.context import StageContext
from evenhand.stages.setup import Setup
from evenhand.stages.splits import read_split
from evenhand.store.whole import write_json
from evenhand.types import Group, Scores

PROBED = 200
"""Answers that the probes are tried on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateRewardModelSpec:
    """The input `model` on the held-out pairs of the data, by its own scores: without the scale that a policy is rewarded on."""

    KIND: ClassVar[str] = "evaluate_reward_model"
    VERSION: ClassVar[int] = 4

    setup: Setup


def run(spec: EvaluateRewardModelSpec, context: StageContext) -> None:
    device, inputs = begin(spec.setup.compute), context.inputs
    reward = open_model_reward(inputs["model"], spec.setup, device, inputs.get("reference")).unscaled()
    split = read_split(inputs, "heldout_preferences")
    groups = [g for g in split if max(g.scores) > min(g.scores)]
    if not groups and all(len(g.completions) == 1 for g in split):
        write_json(context.out / "scores.json", labelled_columns(split, reward(split)))
        write_json(context.out / "probes.json", {})
        return
    write_json(context.out / "scores.json", columns(groups, reward(groups)))
    write_json(context.out / "probes.json", probe(groups[:PROBED], reward.roomy()))


def columns(groups: Sequence[Group], scored: Sequence[Scores]) -> dict[str, list[float]]:
    """Scores and characters of the best and of the worst answer of each group, by its labels."""
    rows = []
    for group, found in zip(groups, scored, strict=True):
        best = max(range(len(group.scores)), key=lambda i: group.scores[i])
        worst = min(range(len(group.scores)), key=lambda i: group.scores[i])
        rows.append(
            (found.values[best], found.values[worst], len(group.completions[best].text), len(group.completions[worst].text))
        )
    names = ("chosen", "rejected", "chosen_chars", "rejected_chars")
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def labelled_columns(groups: Sequence[Group], scored: Sequence[Scores]) -> dict[str, list[float]]:
    """The same of single answers (or steps) that are right or wrong: a right one against a score of 0, a wrong one behind it.

    The score being the logit of a right answer, accuracy, log-loss and calibration are then those of its probability.
    """
    rows = []
    for group, found in zip(groups, scored, strict=True):
        score, length = found.values[0], len(group.completions[0].text)
        rows.append((score, 0.0, length, length) if group.scores[0] > 0.5 else (0.0, score, length, length))
    names = ("chosen", "rejected", "chosen_chars", "rejected_chars")
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
