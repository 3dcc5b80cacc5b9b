"""One row of a file, read field by field; whatever is wrong is said with file, line and field."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from evenhand.data.messages import read_message
from evenhand.data.values import as_json, half_character, listed, look, shown, shown_name
from evenhand.errors import UserError
from evenhand.types import Content, Message

Style = Literal["", "verbatim", "chat"]
Transcripts = Literal["turns", "verbatim"]
Grades = Literal["use", "ignore"]

LABELS = {
    **dict.fromkeys(("true", "1", "1.0", "+1"), 1.0),
    **dict.fromkeys(("false", "0", "0.0", "-1", "-1.0"), 0.0),
}
"""How yes and no are written."""
_SKIP = "or leave such rows out: on_bad_row: skip"


class BadRow(UserError):
    """A row that does not fit its format. `where` names file, line and field."""

    @classmethod
    def of(cls, error: UserError) -> BadRow:
        """A row that could not even be read."""
        return cls.at(error.where, error.what, why=error.why, fix=error.fix)

    @classmethod
    def at(cls, place: str, what: str, *, why: str = "", fix: str = "") -> BadRow:
        """The same without an error of its own, where there may be very many."""
        return cls(what, where=place, why=why, fix=f"{fix or 'correct the row'}, {_SKIP}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowReading:
    """How rows of one source are read, beyond their format.

    `columns` maps a field's name to the column that holds it (`{prompt: question}`; a dot goes into objects).
    `style`: verbatim keeps strings as they are, chat makes them turns of a conversation, "" is the format's own habit.
    `wrap` is put around a verbatim prompt (`"Q: {prompt}\\nA:"`). `transcripts`: turns parses Human/Assistant transcripts.
    `grades`: use takes the scores of graded pairs, ignore keeps (1, 0). `keep`: columns kept in meta; None keeps all others.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    style: Style = ""
    wrap: str = ""
    transcripts: Transcripts = "turns"
    grades: Grades = "use"
    keep: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """`data` as read and its `place` ("pairs.jsonl:13"). Fields are asked for by the names that formats use."""

    data: Mapping[str, Any]
    place: str
    reading: RowReading = field(default_factory=RowReading)

    def column(self, name: str) -> str:
        return self.reading.columns.get(name, name)

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return look(self.data, self.column(name)) is not None

    def get(self, name: str) -> Any:
        """The field's value; a BadRow when it is missing or null."""
        column = self.column(name)
        value = look(self.data, column)
        if value is None:
            state = "is null" if column in self.data else "is missing"
            raise self.bad(name, state, fix=f"add '{column}' (this row has: {listed(self.data) or 'nothing'})")
        return value

    def bad(self, name: str, finding: str, *, fix: str = "", why: str = "") -> BadRow:
        """The error for a field: what was found and the way out."""
        column = self.column(name)
        as_field = f"field '{column}'" if column == name else f"field '{column}' (used as {name})"
        way_out = f"{fix or 'correct the row'}, {_SKIP}"
        return BadRow(finding, where=f"{self.place}, {as_field}", why=why, fix=way_out)

    def text(self, name: str, *, empty: bool = False) -> str:
        """A string field; blank ones are bad unless `empty`."""
        value = self.get(name)
        if not isinstance(value, str):
            raise self.bad(name, f"expected text, found {shown(value)}")
        if not empty and not value.strip():
            raise self.bad(name, "is empty")
        return self.whole(name, value)

    def whole(self, name: str, text: str) -> str:
        """The text, every character of it whole."""
        if found := half_character(text):
            raise self.bad(name, found)
        return text

    def items(self, name: str) -> list[Any]:
        """A list field with at least one item."""
        value = self.get(name)
        if not isinstance(value, list | tuple):
            raise self.bad(name, f"expected a list, found {shown(value)}")
        if not value:
            raise self.bad(name, "is an empty list")
        return list(value)

    def number(self, name: str) -> float:
        return self.as_number(name, self.get(name))

    def as_number(self, name: str, value: Any) -> float:
        """A finite float; text that spells one is taken too (CSV has nothing else)."""
        try:
            if isinstance(value, bool):
                raise TypeError
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise self.bad(name, f"expected a number, found {shown(value)}") from None
        if not math.isfinite(number):
            raise self.bad(name, f"expected a finite number, found {shown(value)}")
        return number

    def label(self, name: str) -> float:
        """A yes/no field as 1.0 or 0.0."""
        value = self.get(name)
        word = str(value).strip().lower() if isinstance(value, str | bool | int | float) and len(str(value)) < 10 else ""
        if word not in LABELS:
            raise self.bad(name, f"expected true or false (or 1 or 0, or 1 or -1), found {shown(value)}")
        return LABELS[word]

    def content(self, name: str, *, empty: bool = False) -> Content:
        """Text, or turns of a conversation: a list of messages, or a single message."""
        value = self.get(name)
        return self.text(name, empty=empty) if isinstance(value, str) else self.messages(name, value, empty=empty)

    def messages(self, name: str, value: Any = None, *, empty: bool = False) -> tuple[Message, ...]:
        """Messages as {"role", "content"} or {"from", "value"} objects, with roles in their usual names."""
        value = self.get(name) if value is None else value
        value = [value] if isinstance(value, Mapping) else value
        if not isinstance(value, list | tuple):
            raise self.bad(name, f"expected text or a list of messages, found {shown(value)}")
        if not value:
            raise self.bad(name, "is an empty list of messages")
        bad = partial(self.bad, name)
        return tuple(read_message(item, f"message {i}", bad, empty=empty) for i, item in enumerate(value, 1))

    def json(self, name: str) -> Any:
        """The field's value in JSON's types; a BadRow for what has no such form, such as bytes."""
        return self._json(self.column(name), self.get(name))

    def _json(self, column: str, value: Any) -> Any:
        try:
            return as_json(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            fix = f"leave the column out (keep: [columns to keep]), {_SKIP}"
            raise BadRow(str(error), where=f"{self.place}, field '{shown_name(column)}'", fix=fix) from None

    def meta(self, used: Iterable[str]) -> dict[str, Any]:
        """The columns that the format did not use, as JSON values for rewards and reports; missing ones are left out.

        A BadRow for a value that JSON does not have, such as bytes.
        """
        taken = {self.column(name).split(".")[0] for name in used}
        kept = self.reading.keep
        made = {}
        for name, value in self.data.items():
            if name in taken if kept is None else name not in kept:
                continue
            made[name] = self._json(name, value)
        return {name: value for name, value in made.items() if value is not None}
