"""Which tokens of a rendered conversation the assistant wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.data.encode import Offsets
from evenhand.errors import UserError

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

Spans = tuple[tuple[int, int, bool], ...]
"""Per turn of the assistant: its characters in a rendered conversation, and whether it is learned."""


def is_marked(template: Any) -> bool:
    """Whether a template says by {% generation %} blocks what the assistant writes."""
    return isinstance(template, str) and _GENERATION.search(template) is not None


def by_spans(spans: Spans, offsets: Offsets) -> tuple[bool, ...]:
    """True for each token, of which `offsets` gives the characters, that lies in a turn that is learned."""
    learned = [(start, stop) for start, stop, train in spans if train]
    return tuple(any(start <= a and b <= stop and a < b for start, stop in learned) for a, b in offsets)


def by_marks(found: Mapping[str, Any], ids: Sequence[int], where: str) -> tuple[bool, ...]:
    """True for each of `ids` that the template's marks cover; `found` is what `Chat.marked` returns."""
    if tuple(found["input_ids"][: len(ids)]) != tuple(ids):
        raise UserError(
            "the conversation tokenises differently with the template's {% generation %} marks",
            where=where,
            fix="check the marks of the chat template, or use a template without them",
        )
    return tuple(bool(m) for m in found["assistant_masks"][: len(ids)])


def checked(mask: Sequence[bool], ids: Sequence[int], stop_ids: frozenset[int], where: str) -> tuple[bool, ...]:
    """The mask with the stop token of each turn; some templates put it outside of their marks. UserError when it is empty."""
    if not any(mask):
        raise UserError(
            "no token of the conversation is the assistant's",
            where=where,
            why="nothing would be learned, and the loss would look fine",
            fix="check the {% generation %} marks of the chat template and the roles of the turns",
        )
    return tuple(m or (i > 0 and mask[i - 1] and ids[i] in stop_ids) for i, m in enumerate(mask))
