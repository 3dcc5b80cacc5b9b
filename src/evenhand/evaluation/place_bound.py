"""Judgements of a judge that looks at the place and not at the answer: refused before any number is made of them."""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.errors import UserError
from evenhand.judges.selftest import FEWEST


def refuse_place_bound(first: Sequence[tuple[float, float]], where: str) -> None:
    """`first`: per pair, how far the answer shown first was preferred in either order (1, 1/2, 0). UserError when it always, or
    never, was.

    >>> refuse_place_bound([(1.0, 0.0)] * 9, "file")
    >>> refuse_place_bound([(1.0, 1.0)] * 9, "file")
    Traceback (most recent call last):
        ...
    evenhand.errors.UserError: file: the judge prefers the answer shown first in both orders, every time (9 pairs)
      why: a rate made of these verdicts says nothing about the answers
      fix: use another judge or template
    """
    for place, value in (("first", 1.0), ("second", 0.0)):
        if len(first) >= FEWEST and all(pair == (value, value) for pair in first):
            raise UserError(
                f"the judge prefers the answer shown {place} in both orders, every time ({len(first)} pairs)", where=where,
                why="a rate made of these verdicts says nothing about the answers", fix="use another judge or template",
            )  # fmt: skip
