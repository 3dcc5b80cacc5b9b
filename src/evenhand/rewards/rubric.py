"""A rubric as a reward: criteria that an answer meets or not, each with its weight, each visible as a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evenhand.errors import UserError
from evenhand.protocols import Reward
from evenhand.types import Group, Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """Met where `reward` is `least` or more. A negative `weight` is for what an answer should not be."""

    reward: Reward
    weight: float = 1.0
    least: float = 1.0


@dataclass(frozen=True, slots=True)
class Rubric:
    """`sum_k w_k 1[criterion k is met] / (sum of positive w_k)`: at most 1, and below 0 where only faults are met.

    `parts` hold 1 or 0 for each criterion under its name, and its reward as it was under `name/reward`. An answer that one
    criterion cannot judge is not judged (NaN): to leave it out would reward what cannot be read."""

    criteria: Mapping[str, Criterion]

    def __post_init__(self) -> None:
        if not sum(c.weight for c in self.criteria.values() if c.weight > 0) > 0:
            why = "the score is a share of what can be earned"
            raise UserError("no criterion has a positive weight", where="reward rubric", why=why, fix="add one to be earned")

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        found = {name: c.reward(groups) for name, c in self.criteria.items()}
        return [self._one({name: scores[i] for name, scores in found.items()}) for i in range(len(groups))]

    def _one(self, found: Mapping[str, Scores]) -> Scores:
        met = {name: tuple(_met(v, self.criteria[name].least) for v in s.values) for name, s in found.items()}
        weights = [self.criteria[name].weight for name in met]
        most = sum(w for w in weights if w > 0)
        values = tuple(sum(w * m for w, m in zip(weights, row, strict=True)) / most for row in zip(*met.values(), strict=True))
        return Scores(values, met | {f"{name}/reward": s.values for name, s in found.items()})


def _met(value: float, least: float) -> float:
    return value if value != value else float(value >= least)
