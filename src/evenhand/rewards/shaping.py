"""Length, and answers that never end. Terms to add with a weight, or a rule around another reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evenhand.errors import UserError, one_of
from evenhand.protocols import Reward
from evenhand.rewards.pointwise import Pointwise, pointwise
from evenhand.types import Completion, Finish, Group, Prompt, Scores
from evenhand.worlds.labels import words


def token_count(completion: Completion) -> int:
    """Sampled tokens, the stop token included."""
    if completion.tokens is None:
        raise UserError("an answer from a file has no token count", where="reward length", fix="use unit: words or unit: chars")
    return len(completion.tokens)


UNITS: Mapping[str, Callable[[Completion], int]] = {
    "chars": lambda completion: len(completion.text),
    "words": lambda completion: len(words(completion.text)),
    "tokens": token_count,
}


def measure(unit: str) -> Callable[[Completion], int]:
    """The length of a completion in the unit."""
    return UNITS[one_of("unit", unit, UNITS, where="reward length")]


def length(*, unit: str, over: int = 0) -> Pointwise:
    """`max(0, length - over)`: weigh it by -0.001 per char for the length penalty of Dong et al. 2024 (arXiv:2405.07863).

    >>> from evenhand.types import *
    >>> group = Group(prompt=Prompt(content="?"), completions=(Completion(content="one two three"), Completion(content="one")))
    >>> length(unit="words", over=1)([group])[0].values
    (2.0, 0.0)
    """
    count = measure(unit)
    return pointwise(lambda prompt, completion: max(0, count(completion) - over), name="length")


def overlong(*, limit: int, buffer: int, unit: str = "tokens") -> Pointwise:
    """DAPO's soft penalty in [-1, 0] (arXiv:2503.14476, eq. 13): 0 up to `limit - buffer`, then linear to -1 at `limit`.

    A reward term of numbers; `core.shaping.overlong_penalty` is the same formula on tensors.
    """
    count = measure(unit)
    if not 0 < buffer <= limit:
        raise UserError(f"buffer is {buffer}, limit {limit}", where="reward overlong", fix="use 0 < buffer <= limit")

    def score(prompt: Prompt, completion: Completion) -> float:
        return max(-1.0, min(0.0, (limit - buffer - count(completion)) / buffer))

    return pointwise(score, name="overlong")


def unfinished(completion: Completion) -> bool:
    """Whether the sampler hit the token limit before a stop token. A text from a file counts as finished."""
    return completion.finish is Finish.LENGTH


UNFINISHED_RULES: Mapping[str, Callable[[float, float], float]] = {
    "none": lambda score, value: score,
    "replace": lambda score, value: value,
    "subtract": lambda score, value: score - value,
}
"""none: score it as it is. replace: a fixed score, below the usual ones (summarize_from_feedback). subtract: a fine (TRL)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """Another reward, with a rule for answers that did not stop. `parts` gain `unfinished` (1 or 0) and `score` (unruled)."""

    inner: Reward
    rule: str
    value: float = 0.0

    def __post_init__(self) -> None:
        one_of("rule", self.rule, UNFINISHED_RULES, where="reward unfinished")

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [self._one(group, scores) for group, scores in zip(groups, self.inner(groups), strict=True)]

    def _one(self, group: Group, scores: Scores) -> Scores:
        cut = [unfinished(c) for c in group.completions]
        change = UNFINISHED_RULES[self.rule]
        values = tuple(change(v, self.value) if c else v for v, c in zip(scores.values, cut, strict=True))
        return Scores(values, {**scores.parts, "unfinished": tuple(map(float, cut)), "score": scores.values})
