"""Running text as training data: documents, openings to continue, and their continuations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evenhand.data.decode import read_text
from evenhand.errors import UserError
from evenhand.types import Completion, Group, Prompt

END_OF_TEXT = "<|endoftext|>"
_BLANK_LINE = re.compile(r"\r?\n[ \t]*\r?\n")
_SENTENCE = re.compile(r"[.!?]+[\"'”’)]*(?=\s|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How text becomes prompts. `separator`: between documents; "" means <|endoftext|> where it occurs, else a blank line.

    `words` or `sentences`: how long an opening is; neither: the whole document follows an empty prompt.
    """

    separator: str = ""
    words: int = 0
    sentences: int = 0

    def __post_init__(self) -> None:
        if self.words and self.sentences:
            raise UserError("opening_words and opening_sentences are both given", where="data", fix="keep one of them")
        if self.words < 0 or self.sentences < 0:
            raise UserError("an opening cannot have a negative length", where="data", fix="use 1 or more")

    @property
    def note(self) -> str:
        if not (self.words or self.sentences):
            return "whole, empty prompt"
        length, unit = (self.words, "word") if self.words else (self.sentences, "sentence")
        return f"openings of {length} {unit}{'s' if length > 1 else ''}"


def separator_of(text: str, cutting: Cutting) -> str:
    """The separator that applies to this text, named for people."""
    if cutting.separator:
        return cutting.separator
    return END_OF_TEXT if END_OF_TEXT in text else "blank line"


def documents(text: str, cutting: Cutting) -> list[str]:
    """The documents of a text, blanks around them taken off, empty ones left out.

    >>> documents("One.\\n\\nTwo.", Cutting())
    ['One.', 'Two.']
    """
    name = separator_of(text, cutting)
    pieces = _BLANK_LINE.split(text) if name == "blank line" else text.split(name)
    return [piece.strip() for piece in pieces if piece.strip()]


def split_opening(document: str, cutting: Cutting) -> tuple[str, str] | None:
    """(opening, continuation); the continuation keeps its leading blank. None when nothing would follow.

    >>> split_opening("Once upon a time there was a cat.", Cutting(words=4))
    ('Once upon a time', ' there was a cat.')
    """
    if not (cutting.words or cutting.sentences):
        return "", document
    ends: Iterator[re.Match[str]] = re.finditer(r"\S+", document) if cutting.words else _SENTENCE.finditer(document)
    for count, match in enumerate(ends, 1):
        if count == (cutting.words or cutting.sentences):
            opening, rest = document[: match.end()], document[match.end() :]
            return (opening, rest) if rest.strip() else None
    return None


def document_groups(path: Path, encoding: str, cutting: Cutting) -> tuple[list[Group], str, int]:
    """Groups of one text file (opening -> continuation), the separator used, and how many documents were too short."""
    text = read_text(path, encoding)
    cut = [split_opening(d, cutting) for d in documents(text, cutting)]
    groups = [
        Group(prompt=Prompt(content=opening), completions=(Completion(content=rest),)) for opening, rest in filter(None, cut)
    ]
    if not groups:
        raise UserError("no document is long enough", where=path.name, fix="check separator, opening_words or opening_sentences")
    return groups, separator_of(text, cutting), cut.count(None)
