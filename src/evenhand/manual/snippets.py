"""The fenced blocks of a page: files to write (their first line names them) and commands to run, in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"# (\S+\.(?:py|yaml|jsonl))\n")


@dataclass(frozen=True, slots=True)
class Snippet:
    """A block of a page: its language, the file it is (empty for commands and fragments), its text without that name."""

    language: str
    file: str
    text: str


def snippets(page: str) -> Iterator[Snippet]:
    """The blocks of a Markdown page."""
    for found in _FENCE.finditer(page):
        named = _NAME.match(found[2])
        yield Snippet(found[1], named[1] if named else "", found[2][named.end() :] if named else found[2])


def commands(page: str) -> Iterator[Snippet | str]:
    """What a reader does, in order: files to write, and command lines to type."""
    for block in snippets(page):
        if block.file:
            yield block
        elif block.language == "bash":
            yield from (line for line in block.text.splitlines() if line.strip())
