"""Blocks of thoughts: which one a prompt leaves open, and what an answer behind it looks like."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from evenhand.errors import UserError

_NAMES = "think|thinking|thought|thoughts|reason|reasoning|seed:think"
_OPEN = re.compile(rf"(<({_NAMES})>|\[(THINK)\]|◁(think)▷|<\|START_(THINKING)\|>)(\s*)\Z")


@dataclass(frozen=True, slots=True)
class ThinkingBlock:
    """A block that a text leaves open at its end: its mark, the mark that ends it, and the blanks behind the first."""

    start: str
    end: str
    blanks: str

    @property
    def length(self) -> int:
        """Characters of the mark and the blanks."""
        return len(self.start) + len(self.blanks)

    @property
    def nothing(self) -> str:
        """What ends a block of no thoughts, right behind its opening."""
        return f"{self.blanks}{self.end}{self.blanks * 2}"


class Unclosed(UserError):
    """An answer that opens a block of thoughts and never closes it."""


def left_open(text: str) -> ThinkingBlock | None:
    """The block of thoughts with which a text ends, if it ends so.

    >>> left_open("Assistant: <think>\\n").end
    '</think>'
    >>> left_open("<think>\\n\\n</think>\\n\\n") is None
    True
    """
    found = _OPEN.search(text)
    if not found:
        return None
    mark, *names, blanks = found.groups()
    name = next(filter(None, names))
    ends = {"<": f"</{name}>", "[": f"[/{name}]", "◁": f"◁/{name}▷"}
    return ThinkingBlock(mark, f"<|END_{name}|>" if mark.startswith("<|") else ends[mark[0]], blanks)


def continued(block: ThinkingBlock, content: str, written: str) -> str | None:
    """What follows a prompt that left `block` open, without the answer's terminator; None where `written` says it all.

    `content` is the answer as the data have it, `written` what the template writes for that turn where the block begins, to
    the end. Thoughts in the content stay; without any, the block is closed at once.
    """
    said = content.lstrip()
    opens = said.startswith(block.start)
    inner = said[len(block.start) :].removeprefix(block.blanks) if opens else content
    thoughts, closed, _ = inner.partition(block.end)
    if closed:
        return None if written.startswith(block.start) and squeezed(thoughts) in squeezed(written) else inner
    if opens:
        raise Unclosed(f"an answer opens {block.start} and never closes it")
    return None if written.startswith((block.start, block.end)) and block.end in written else block.nothing + content


def after(block: ThinkingBlock, written: str) -> str:
    """What the template writes for a turn, `written` from where its block begins, as it follows a prompt that opened it.

    >>> after(ThinkingBlock("<think>", "</think>", "\\n"), "<think></think>Two.")
    '</think>Two.'
    """
    return written.removeprefix(block.start).removeprefix(block.blanks) if written.startswith(block.start) else written


def squeezed(text: str) -> str:
    """A text without its blanks, which templates trim and add."""
    return "".join(text.split())


def written(words: str, text: str) -> bool:
    """Whether a text has the words, perhaps with other blanks between them, or as a JSON string."""
    return words.strip() in text or json.dumps(words, ensure_ascii=False)[1:-1] in text or squeezed(words) in squeezed(text)
