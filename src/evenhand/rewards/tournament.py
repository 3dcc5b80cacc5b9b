"""A judge of pairs as a reward of groups: every answer against every other, or a knock-out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from evenhand.errors import one_of
from evenhand.judges.verdict import Comparison, Judge
from evenhand.protocols import TrainedReward
from evenhand.types import Group, Scores

Beats = Callable[[Sequence[tuple[int, int]]], list[float]]
"""Outcomes in [0, 1] of the asked pairs (i, j): 1 = i preferred."""


def borda(count: int, beats: Beats) -> list[float]:
    """`mean over j != i of P(i preferred to j)`, from count (count - 1) / 2 comparisons: the Borda score, in [0, 1].

    >>> borda(3, lambda pairs: [float(i < j) for i, j in pairs])
    [1.0, 0.5, 0.0]
    """
    wins = [0.0] * count
    pairs = list(combinations(range(count), 2))
    for (i, j), outcome in zip(pairs, beats(pairs), strict=True):
        wins[i] += outcome
        wins[j] += 1.0 - outcome
    return [w / (count - 1) for w in wins]


def knock_out(count: int, beats: Beats) -> list[float]:
    """Rounds won in a knock-out between neighbours, from count - 1 comparisons: the best of n at a fraction of Borda's price.

    An odd one out goes on without playing; a tie lets the first go on.

    >>> knock_out(4, lambda pairs: [float(i > j) for i, j in pairs])
    [0.0, 1.0, 0.0, 2.0]
    """
    won, left, played = [0.0] * count, list(range(count)), 0
    while len(left) > 1:
        played += 1
        pairs = list(zip(left[::2], left[1::2], strict=False))
        through = [i if outcome >= 0.5 else j for (i, j), outcome in zip(pairs, beats(pairs), strict=True)]
        left = through + left[2 * len(pairs) :]
        for i in left:
            won[i] = float(played)
    return won


RULES: Mapping[str, Callable[[int, Beats], list[float]]] = {"borda": borda, "knock_out": knock_out}


@dataclass(frozen=True, slots=True)
class Tournament:
    """The answers of a group against each other, by `judge`; `rule` is `borda` or `knock_out`.

    The judge asks in both orders, so that P(a beats b) + P(b beats a) = 1 whatever place it prefers. A single answer has nobody
    to play and is unscored (NaN): to compare two arms use the judge itself.
    """

    judge: Judge
    rule: str = "borda"

    def __post_init__(self) -> None:
        one_of("rule", self.rule, RULES, where="reward tournament")

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [self._one(group) for group in groups]

    def unscaled(self) -> TrainedReward:
        """As it is: chances have a scale of their own."""
        return self

    def roomy(self) -> TrainedReward:
        """As it is: the judge cuts no answer."""
        return self

    def _one(self, group: Group) -> Scores:
        answers = group.completions
        if len(answers) < 2:
            return Scores((math.nan,) * len(answers))

        def beats(pairs: Sequence[tuple[int, int]]) -> list[float]:
            return [
                v.outcome for v in self.judge([Comparison(prompt=group.prompt, a=answers[i], b=answers[j]) for i, j in pairs])
            ]

        return Scores(tuple(RULES[self.rule](len(answers), beats)))
