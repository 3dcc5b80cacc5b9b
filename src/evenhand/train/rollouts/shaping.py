"""What is taken off a reward before anything is credited: length penalties, and what becomes of answers that the limit cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from evenhand.core import kl_control
from evenhand.train.examples import Example, cut_group
from evenhand.types import Finish, Group, Scores

UNSHAPED = "unshaped"
"""The part of a group's scores that holds the reward as it was."""
GREEDY = "greedy"
"""The part of a group's scores that holds the reward of its prompt's greedy answer, once per completion."""


class Shaping(Protocol):
    """A scored group with other scores; the reward as it was goes into the part UNSHAPED."""

    def __call__(self, group: Group) -> Group: ...


@dataclass(frozen=True, kw_only=True)
class LengthPenalty:
    """`per_character` off the reward for each character, and DAPO's soft penalty in the last `buffer` tokens before `limit`."""

    per_character: float = 0.0
    limit: int = 0
    buffer: int = 0

    def __call__(self, group: Group) -> Group:
        if not (self.per_character or self.buffer):
            return group
        penalty = torch.tensor([self.per_character * len(c.text) for c in group.completions])
        if self.buffer:
            length = torch.tensor([float(len(c.tokens or ())) for c in group.completions])
            penalty = penalty - kl_control.overlong_penalty(length, limit=self.limit, buffer=self.buffer)
        scores = tuple(s - p for s, p in zip(group.scores, penalty.tolist(), strict=True))
        return replace(group, scores=scores, parts={**group.parts, UNSHAPED: group.scores})


@dataclass(frozen=True)
class Truncation:
    """`mask`: no loss on an answer that the limit cut, whose reward counts in the credit of the others if `in_baseline`."""

    mask: bool = False
    in_baseline: bool = True

    def rewards(self, examples: Sequence[Example]) -> Tensor:
        """The rewards [P, G] that are credited, NaN where one counts nowhere."""
        reward = torch.tensor([e.tokens.group.scores for e in examples], dtype=torch.float32)
        if self.mask and not self.in_baseline:
            reward = torch.where(torch.tensor([truncated(e) for e in examples]), torch.nan, reward)
        return reward

    def weighted(self, example: Example) -> Example:
        """Weight 0 for a completion that could not be scored, and for a masked one; nothing changes if all count."""
        scores = example.tokens.group.scores
        counts = [score == score and not (self.mask and cut) for score, cut in zip(scores, truncated(example), strict=True)]
        return replace(example, per_completion={**example.per_completion, "weight": tuple(map(float, counts))})


def truncated(example: Example) -> list[bool]:
    """Which completions the limit cut."""
    return [c.finish is Finish.LENGTH for c in example.tokens.group.completions]


def spread(group: Group, *, unshaped: bool = False) -> float:
    """Range of a group's known scores, or of the rewards before length penalties; 0 when fewer than two are known."""
    scores = group.parts.get(UNSHAPED, group.scores) if unshaped else group.scores
    known = [s for s in scores if s == s]
    return max(known) - min(known) if len(known) > 1 else 0.0


def with_scores(group: Group, scores: Scores) -> Group:
    """The group with a reward's values and parts, and what was earned at each token where the reward knows."""
    scored = replace(group, scores=scores.values, parts=scores.parts)
    if not scores.earned:
        return scored
    told = tuple(replace(c, earned=row) for c, row in zip(group.completions, scores.earned, strict=True))
    return replace(scored, completions=told)


def without_failed(group: Group, scores: Scores) -> Scores:
    """The scores, NaN for an answer whose environment failed: what it would have come to is not known."""
    if not any(c.failed for c in group.completions):
        return scores
    values = tuple(math.nan if c.failed else v for c, v in zip(group.completions, scores.values, strict=True))
    return replace(scores, values=values)


def with_greedy(group: Group, best: Group) -> Group:
    """The group with the greedy answer to its prompt as its last."""
    return replace(group, completions=group.completions + best.completions, scores=())


def without_greedy(group: Group) -> Group:
    """The sampled answers alone; the score of the last one, the greedy, is a part of each."""
    kept = range(len(group.completions) - 1)
    cut = cut_group(group, kept)
    return replace(cut, parts={**cut.parts, GREEDY: (group.scores[-1],) * len(kept)})
