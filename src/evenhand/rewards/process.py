"""A process reward model as a reward: the probability that each step of an answer is right, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from evenhand.core.process import AGGREGATES, differences
from evenhand.data.batch import split_by_tokens
from evenhand.errors import one_of
from evenhand.rewards.model import ModelReward
from evenhand.types import Group, Scores, TokenGroup, Tokens

SEPARATOR = "\n"
"""What stands between two steps."""


@dataclass(frozen=True, slots=True)
class ProcessReward:
    """`aggregate` of p_1, ..., p_K: sigmoid of the score read at the last token of each step, all before it being seen.

    A step ends with `separator`, and the last one with the answer. With `aggregate: differences` the value is p_K, of which
    p_k - p_{k-1} is `earned` at the end of step k. `parts` hold the number of steps, their least and their last.
    """

    model: ModelReward
    aggregate: str = "min"
    separator: str = SEPARATOR

    def __post_init__(self) -> None:
        one_of("aggregate", self.aggregate, AGGREGATES, where="process reward")

    def unscaled(self) -> ModelReward:
        """The same model on whole answers, on the scale of its own scores: the logit of the last step's being right."""
        return self.model.unscaled()

    def roomy(self) -> ProcessReward:
        """See `protocols.TrainedReward`."""
        return replace(self, model=self.model.roomy())

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        tokens = [self.model.tokens(group) for group in groups]
        ends = [[self.ends(c.ids) for c in t.completions] for t in tokens]
        rows = [prefixes(t, e) for t, e in zip(tokens, ends, strict=True)]
        scores: dict[int, tuple[float, ...]] = {}
        whole = self.unscaled()
        for indices in split_by_tokens([row.size for row in rows], self.model.tokens_per_microbatch):
            scores.update(zip(indices, whole.scores([rows[i] for i in indices]), strict=True))
        return [self._scores(t, e, scores[i]) for i, (t, e) in enumerate(zip(tokens, ends, strict=True))]

    def ends(self, ids: Sequence[int]) -> list[int]:
        """How many tokens an answer has up to the end of each of its steps."""
        return step_ends(ids, self.model.renderer, self.separator)

    def _scores(self, tokens: TokenGroup, ends: Sequence[Sequence[int]], scores: Sequence[float]) -> Scores:
        left = iter(scores)
        steps = [[_sigmoid(next(left)) for _ in own] for own in ends]
        values = tuple(AGGREGATES[self.aggregate](own) for own in steps)
        parts = {
            "steps": tuple(float(len(own)) for own in steps), "least": tuple(map(min, steps)),
            "last": tuple(own[-1] for own in steps),
        }  # fmt: skip
        if self.aggregate != "differences":
            return Scores(values, parts)
        rows = zip(tokens.completions, ends, steps, strict=True)
        return Scores(values, parts, tuple(_earned(len(c.ids), own, p) for c, own, p in rows))


class Writes(Protocol):
    """What finding steps asks of a renderer."""

    @property
    def stop_ids(self) -> frozenset[int]: ...

    def piece(self, ids: tuple[int, ...]) -> str: ...


def step_ends(ids: Sequence[int], renderer: Writes, separator: str) -> list[int]:
    """How many tokens an answer has up to the end of each of its steps; white space alone is no step."""
    found: list[int] = []
    step = ""  # what has been written of it: a separator may be several tokens, and one token may hold the next step's beginning
    for place, token in enumerate(ids, 1):
        step += "" if token in renderer.stop_ids else renderer.piece((token,))
        if separator in step:
            before, _, step = step.rpartition(separator)
            found += [place] if before.replace(separator, "").strip() else []
    if not found or (step.strip() and found[-1] < len(ids)):
        return [*found, len(ids)]
    return [*found[:-1], len(ids)]  # what follows the last step says nothing more


def prefixes(tokens: TokenGroup, ends: Sequence[Sequence[int]]) -> TokenGroup:
    """The prompt once, and behind it every answer up to the end of each of its steps."""
    cut = [Tokens(ids=c.ids[:end], mask=c.mask[:end]) for c, own in zip(tokens.completions, ends, strict=True) for end in own]
    return TokenGroup(prompt=tokens.prompt, completions=tuple(cut), group=tokens.group)


def _earned(length: int, ends: Sequence[int], steps: Sequence[float]) -> tuple[float, ...]:
    row = [0.0] * length
    for end, added in zip(ends, differences(steps), strict=True):
        row[end - 1] = added
    return tuple(row)


def _sigmoid(score: float) -> float:
    from scipy.special import expit

    return float(expit(score))
