"""A reward model's scores of held-out pairs; the statistics are taken from these, not here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from evenhand.errors import UserError
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
    if split and all(len(g.completions) == 1 for g in split):
        write_json(context.out / "scores.json", finite(labelled_columns(split, reward(split))))
        write_json(context.out / "probes.json", {})
        return
    if not groups:
        raise UserError(
            f"no held-out pair tells a better answer from a worse one ({len(split)} rows are held out)",
            where="data.heldout_preferences", fix="name a file of such pairs there, raise `data.holdout`, or give more rows",
        )  # fmt: skip
    write_json(context.out / "scores.json", finite(columns(groups, reward(groups))))
    write_json(context.out / "probes.json", probe(groups[:PROBED], reward.roomy()))


_Row = tuple[float, float, int, int]
_COLUMNS = ("chosen", "rejected", "chosen_chars", "rejected_chars")


def columns(groups: Sequence[Group], scored: Sequence[Scores]) -> dict[str, list[float]]:
    """Scores and characters of the best and of the worst answer of each group, by its labels."""

    def row(group: Group, found: Scores) -> _Row:
        best, worst = (choose(range(len(group.scores)), key=group.scores.__getitem__) for choose in (max, min))
        return found.values[best], found.values[worst], len(group.completions[best].text), len(group.completions[worst].text)

    return _by_column(row(group, found) for group, found in zip(groups, scored, strict=True))


def finite(columns: Mapping[str, list[float]]) -> Mapping[str, list[float]]:
    """The columns as they are. Raises: UserError for a score that is no number, which costs this model alone its card."""
    scores = [*columns["chosen"], *columns["rejected"]]
    if wrong := sum(not math.isfinite(score) for score in scores):
        raise UserError(
            f"{wrong} of {len(scores)} scores of held-out answers are no numbers", where="reward model",
            why="its training went astray", fix="lower `learning_rate` in its `train:`, and look at its loss",
        )  # fmt: skip
    return columns


def labelled_columns(groups: Sequence[Group], scored: Sequence[Scores]) -> dict[str, list[float]]:
    """The same of single answers (or steps) that are right or wrong: a right one against a score of 0, a wrong one behind it.

    The score being the logit of a right answer, accuracy, log-loss and calibration are then those of its probability.
    """

    def row(group: Group, found: Scores) -> _Row:
        score, length = found.values[0], len(group.completions[0].text)
        return (score, 0.0, length, length) if group.scores[0] > 0.5 else (0.0, score, length, length)

    return _by_column(row(group, found) for group, found in zip(groups, scored, strict=True))


def _by_column(rows: Iterable[_Row]) -> dict[str, list[float]]:
    return {name: list(column) for name, column in zip(_COLUMNS, zip(*rows, strict=True), strict=True)}
