"""Labels that do not fit what is to be learned of them: ratings without the attribute, steps that are not those that are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from evenhand.data.parsers import STEP
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.methods import Method
from evenhand.objectives import AttributeRegression
from evenhand.rewards.process import step_ends
from evenhand.types import TokenGroup


def problems(method: Method, rows: Sequence[TokenGroup], renderer: Renderer) -> Iterator[UserError]:
    """The faults of rows that a method is to learn from; none where it reads scores alone."""
    if isinstance(method.objective, AttributeRegression):
        yield from rating_problems(method.objective.attributes, rows)
    if (how := method.serves) is not None and how["kind"] == "process":
        yield from step_problems(how["separator"], rows, renderer)


def rating_problems(attributes: Mapping[str, tuple[float, float]], rows: Sequence[TokenGroup]) -> Iterator[UserError]:
    """An attribute that no row rates, or a rating outside of its scale."""
    for name, (low, high) in attributes.items():
        found = [v for row in rows for v in row.group.parts.get(name, ()) if not math.isnan(v)]
        if not found:
            there = sorted({part for row in rows for part in row.group.parts})
            fix = f"the rows have ratings of {', '.join(there)}" if there else "give rows a field `ratings` (docs/data.md)"
            yield UserError(f"no row has a rating of '{name}'", where="attributes", fix=fix)
        if outside := [v for v in found if not low <= v <= high]:
            what = f"a row rates '{name}' {outside[0]:g}, which is not from {low:g} to {high:g}"
            yield UserError(what, where="attributes", fix=f"give its scale: `attributes: {{{name}: [LOWEST, HIGHEST]}}`")


def step_problems(separator: str, rows: Sequence[TokenGroup], renderer: Renderer) -> Iterator[UserError]:
    """Rows of steps that would be read as more steps, or fewer, where the model rewards an answer: they are labelled otherwise.

    A row that was cut, or that no file of steps gave, is left alone.
    """
    for row in rows:
        number, (answer,) = row.group.prompt.meta.get(STEP), row.completions
        if number is None or answer.truncated or (found := len(step_ends(answer.ids, renderer, separator))) == number:
            continue
        yield UserError(
            f"{number} steps are labelled where {found} are read", where=f"separator, prompt {row.group.prompt.id}",
            why=f"a step ends with {separator!r} where the model is used; a step of the data holds it, or ends otherwise",
            fix="put a step on one line; or give rows a field `separator`, such as two line breaks, and the model the same",
        )  # fmt: skip
        return
