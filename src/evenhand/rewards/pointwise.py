"""From a function of one answer to a reward of groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

from evenhand.errors import UserError
from evenhand.types import Completion, Group, Prompt, Scores

Score = Callable[[Prompt, Completion], float | Mapping[str, float] | None]
"""Higher is better; None = could not be scored. A mapping gives parts, of which `reward` is the value."""


@dataclass(frozen=True, slots=True)
class Pointwise:
    """A reward that judges every completion by itself. Build it with `pointwise`."""

    score: Score
    name: str

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [self._group(group) for group in groups]

    def _group(self, group: Group) -> Scores:
        rows = [self._one(group.prompt, completion) for completion in group.completions]
        names = rows[0].keys() if rows else {"reward"}
        if any(row.keys() != names for row in rows):
            raise UserError("answers of one prompt have different parts", where=self.name, fix="give the same names every time")
        columns = {name: tuple(row[name] for row in rows) for name in names}
        return Scores(columns.pop("reward"), columns)

    def _one(self, prompt: Prompt, completion: Completion) -> dict[str, float]:
        found = self.score(prompt, completion)
        row = dict(found) if isinstance(found, Mapping) else {"reward": found}
        if "reward" not in row:
            raise UserError("the parts do not contain 'reward'", where=self.name, fix="add the value under the name 'reward'")
        return {str(name): finite(value, f"{self.name}, prompt {prompt.id}") for name, value in row.items()}


def finite(value: object, where: str) -> float:
    """A reward as a float, NaN for None. UserError for what is no number, and for what is not finite."""
    if value is None:
        return math.nan
    if not isinstance(value, Real):
        value = _scalar(value)
    if not isinstance(value, Real):  # bool is a Real: a check may answer True
        raise UserError(
            f"a reward must be a number, this one is {type(value).__name__}: {value!r:.60}",
            where=where,
            fix="return a float, a bool, a dict of them, or None for an answer that cannot be scored",
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise UserError(
            f"a reward must be finite, this one is {number}",
            where=where,
            why="one infinite reward makes every advantage of its group, and so the weights, not a number",
            fix="return a large finite number, or None for an answer that cannot be scored",
        )
    return number


def _scalar(value: object) -> object:
    """What an array or tensor of one number holds; anything else as it is."""
    try:
        return value.item()  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return value


def pointwise(score: Score, *, name: str = "") -> Pointwise:
    """Lift `score(prompt, completion) -> number` to groups. `prompt.meta` carries what a check needs.

    >>> from evenhand.types import *
    >>> shouting = pointwise(lambda prompt, completion: completion.text.isupper())
    >>> shouting([Group(prompt=Prompt(content="Hi"), completions=(Completion(content="YES"), Completion(content="no")))])
    [Scores(values=(1.0, 0.0), parts={}, earned=())]
    """
    return Pointwise(score, name or getattr(score, "__qualname__", type(score).__name__))


def meta_field(prompt: Prompt, field: str, reward: str) -> object:
    """What the prompt's `meta` holds under `field`; an error that names both when it does not."""
    if field not in prompt.meta:
        raise UserError(
            f"the prompt has no field '{field}'",
            where=f"reward {reward}, prompt {prompt.id}",
            why=f"its meta holds: {', '.join(map(repr, prompt.meta)) or 'nothing'}",
            fix="add the column to the data, or name the right one with `field`",
        )
    return prompt.meta[field]
