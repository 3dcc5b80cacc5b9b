"""Rewards made of rewards: weighted sums, clipping, a linear rescaling, ensembles. Unweighted parts stay visible."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from evenhand.errors import UserError, one_of
from evenhand.protocols import Reward
from evenhand.types import Completion, Group, Scores


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """`sum of weight * reward`. `parts` hold each reward unweighted under its name, and its own parts under `name/part`.

    NaN in one reward makes the sum NaN: an answer that could not be judged fully is not judged.
    """

    terms: Mapping[str, tuple[Reward, float]]

    def __post_init__(self) -> None:
        if not self.terms:
            raise UserError("a weighted reward needs at least one part", where="reward weighted")

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        found = {name: reward(groups) for name, (reward, _) in self.terms.items()}
        return [self._one({name: scores[i] for name, scores in found.items()}) for i in range(len(groups))]

    def _one(self, found: Mapping[str, Scores]) -> Scores:
        columns = zip(*(s.values for s in found.values()), strict=True)
        weights = [weight for _, weight in self.terms.values()]
        values = tuple(sum(w * x for w, x in zip(weights, column, strict=True)) for column in columns)
        parts = {name: scores.values for name, scores in found.items()}
        inner = {f"{name}/{part}": v for name, scores in found.items() for part, v in scores.parts.items()}
        return Scores(values, parts | inner, self._earned(found))

    def _earned(self, found: Mapping[str, Scores]) -> tuple[tuple[float, ...], ...]:
        """The weighted sum of what those rewards that know say was earned at each token."""
        known = [(weight, found[name].earned) for name, (_, weight) in self.terms.items() if found[name].earned]
        rows = zip(*(earned for _, earned in known), strict=True)
        weights = [weight for weight, _ in known]
        return tuple(tuple(sum(w * x for w, x in zip(weights, at, strict=True)) for at in zip(*row, strict=True)) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """`inner` on what stands between the one pair of `<tag>` and `</tag>`; `missing` for an answer without, or with several.

    For the thinking format `<reasoning>..</reasoning><answer>..</answer>`: what was only thought is not what was answered.
    """

    inner: Reward
    tag: str = "answer"
    missing: float = 0.0

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        found = [[self._inside(c.text) for c in g.completions] for g in groups]
        cut = [
            replace(g, completions=tuple(Completion(content=text or "") for text in texts), scores=(), parts={})
            for g, texts in zip(groups, found, strict=True)
        ]
        return [self._one(scores, texts) for scores, texts in zip(self.inner(cut), found, strict=True)]

    def _inside(self, text: str) -> str | None:
        found = re.findall(rf"<{re.escape(self.tag)}>(.*?)</{re.escape(self.tag)}>", text, re.DOTALL)
        return found[0].strip() if len(found) == 1 else None

    def _one(self, scores: Scores, texts: Sequence[str | None]) -> Scores:
        values = tuple(self.missing if t is None else v for v, t in zip(scores.values, texts, strict=True))
        return Scores(values, {**scores.parts, "tagged": tuple(float(t is not None) for t in texts)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipped:
    """`min(max(reward, low), high)`; `parts` gain `unclipped`."""

    inner: Reward
    low: float = -float("inf")
    high: float = float("inf")

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UserError(f"low is {self.low}, high is {self.high}", where="reward clip", fix="use low < high")

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [self._one(scores) for scores in self.inner(groups)]

    def _one(self, scores: Scores) -> Scores:
        values = tuple(float(v) for v in np.clip(scores.values, self.low, self.high))  # NaN stays NaN
        return Scores(values, {**scores.parts, "unclipped": scores.values})


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """`(reward - shift) / scale`, scale > 0: the order of answers does not change. `parts` stay as they are."""

    inner: Reward
    shift: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise UserError(
                f"scale is {self.scale}", where="reward affine", why="it would turn the reward round", fix="use scale > 0"
            )

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [Scores(tuple((v - self.shift) / self.scale for v in s.values), s.parts) for s in self.inner(groups)]


Rule = Callable[[np.ndarray], np.ndarray]
"""[members, completions] -> [completions]."""


def lower_bound(scores: np.ndarray, *, k: float) -> np.ndarray:
    """`mean - k * std` over the members (population std): where they disagree, the reward is low.

    >>> lower_bound(np.array([[1.0], [3.0]]), k=0.5)
    array([1.5])
    """
    return scores.mean(0) - k * scores.std(0)


def uncertainty(scores: np.ndarray, *, k: float) -> np.ndarray:
    """`mean - k * variance` over the members (population variance): uncertainty-weighted optimisation, where k 0.5 is usual.

    The variance, unlike the deviation of `lower_bound`, weighs a small disagreement less and a large one more. One member is
    itself.

    >>> uncertainty(np.array([[1.0], [3.0]]), k=0.5)
    array([1.5])
    """
    return scores.mean(0) - k * scores.var(0)


def ensemble_rule(name: str, *, k: float = 1.0) -> Rule:
    """The rule of that name: mean, min (worst case), lower_bound or uncertainty with their `k`.

    Source: Coste et al. 2024 (arXiv:2310.02743): WCO is min, UWO is uncertainty.
    """
    rules: Mapping[str, Rule] = {
        "mean": lambda scores: scores.mean(0), "min": lambda scores: scores.min(0),
        "lower_bound": partial(lower_bound, k=k), "uncertainty": partial(uncertainty, k=k),
    }  # fmt: skip
    return rules[one_of("rule", name, rules, where="reward ensemble")]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Several rewards on one scale, joined by a rule. `parts` hold every member and `spread`, their population std.

    Reward models are defined up to a shift: normalise each before joining them, else `min` picks the lowest level, not the
    most careful judge.
    """

    members: tuple[Reward, ...]
    rule: Rule

    def __post_init__(self) -> None:
        if not self.members:
            raise UserError("an ensemble needs at least one member", where="reward ensemble")

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        found = [member(groups) for member in self.members]
        return [self._one([scores[i] for scores in found]) for i in range(len(groups))]

    def _one(self, found: Sequence[Scores]) -> Scores:
        table = np.array([s.values for s in found])
        parts = {f"member {i}": s.values for i, s in enumerate(found)}
        parts["spread"] = tuple(table.std(0).tolist())
        return Scores(tuple(self.rule(table).tolist()), parts)
