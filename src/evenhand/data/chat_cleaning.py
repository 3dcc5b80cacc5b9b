"""Dialogues written as one text, "\\n\\nHuman: ... \\n\\nAssistant: ...", and prefixes that two answers share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from evenhand.types import Message

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLE = {"Human": "user", "Assistant": "assistant"}


def is_transcript(text: Any) -> bool:
    """Whether a text is such a dialogue from its first character on."""
    return isinstance(text, str) and text.startswith("\n\nHuman:") and "\n\nAssistant:" in text


def turns(text: str) -> tuple[Message, ...]:
    """The turns of a transcript, blanks around them taken off; a last turn may be empty (an answer is to follow).

    >>> [m.content for m in turns("\\n\\nHuman: Hi\\n\\nAssistant: Hello")]
    ['Hi', 'Hello']
    """
    pieces = _TURN.split(text)
    return tuple(Message(_ROLE[role], said.strip()) for role, said in zip(pieces[1::2], pieces[2::2], strict=True))


def shared_turns(conversations: Sequence[Sequence[Message]]) -> int:
    """How many leading turns all conversations share, leaving each at least one turn of its own."""
    limit = min(len(c) for c in conversations) - 1
    first = conversations[0]
    return next((i for i in range(limit) if any(c[i] != first[i] for c in conversations)), max(limit, 0))


def shared_text(texts: Sequence[str]) -> str:
    """The longest common beginning that does not end inside a word of any text.

    >>> shared_text(["Q: who? A: you", "Q: who? A: yes"])
    'Q: who? A:'
    """
    common = _common(min(texts), max(texts))  # of all texts, these two differ first
    if all(len(t) == len(common) or t[len(common)].isspace() for t in texts):
        return common.rstrip()
    words = re.match(r"(.*\S)\s", common, re.DOTALL)
    return words.group(1) if words else ""


def _common(a: str, b: str) -> str:
    return a[: next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))]
