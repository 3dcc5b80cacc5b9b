"""One row of a file, read field by field; whatever is wrong is said with file, line and field."""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from evenhand.errors import UserError, did_you_mean
from evenhand.types import Content, Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""Names of roles found in public data and what they are called here."""

_SHOWN = 60
_HALF = re.compile("[\ud800-\udfff]")


class BadRow(UserError):
    """A row that does not fit its format. `where` names file, line and field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How rows of one source are read, beyond their format.

    `columns` maps a field's name to the column that holds it (`{prompt: question}`; a dot goes into objects).
    `style`: verbatim keeps strings as they are, chat makes them turns of a conversation, "" is the format's own habit.
    `wrap` is put around a verbatim prompt (`"Q: {prompt}\\nA:"`). `transcripts`: turns parses Human/Assistant transcripts.
    `grades`: use takes the scores of graded pairs, ignore keeps (1, 0). `keep`: columns kept in meta; None keeps all others.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    style: Literal["", "verbatim", "chat"] = ""
    wrap: str = ""
    transcripts: Literal["turns", "verbatim"] = "turns"
    grades: Literal["use", "ignore"] = "use"
    keep: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """`data` as read and its `place` ("pairs.jsonl:13"). Fields are asked for by the names that formats use."""

    data: Mapping[str, Any]
    place: str
    reading: Reading = field(default_factory=Reading)

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
            raise self.bad(name, state, fix=f"add '{column}' (this row has: {', '.join(self.data) or 'nothing'})")
        return value

    def bad(self, name: str, finding: str, *, fix: str = "", why: str = "") -> BadRow:
        """The error for a field: what was found and the way out."""
        column = self.column(name)
        as_field = f"field '{column}'" if column == name else f"field '{column}' (used as {name})"
        way_out = f"{fix or 'correct the row'}, or leave such rows out: on_bad_row: skip"
        return BadRow(finding, where=f"{self.place}, {as_field}", why=why, fix=way_out)

    def text(self, name: str, *, empty: bool = False) -> str:
        """A string field; blank ones are bad unless `empty`."""
        value = self.get(name)
        if not isinstance(value, str):
            raise self.bad(name, f"expected text, found {shown(value)}")
        if not empty and not value.strip():
            raise self.bad(name, "is empty")
        return self._whole(name, value)

    def _whole(self, name: str, text: str) -> str:
        """The text; half of a surrogate pair, as a JSON escape can leave it, is no character that could be tokenised."""
        if half := _HALF.search(text):
            raise self.bad(name, f"holds half of a character, \\u{ord(half.group()):04x}, at position {half.start() + 1}")
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
        except (TypeError, ValueError):
            raise self.bad(name, f"expected a number, found {shown(value)}") from None
        if not math.isfinite(number):
            raise self.bad(name, f"expected a finite number, found {shown(value)}")
        return number

    def label(self, name: str) -> float:
        """A yes/no field as 1.0 or 0.0."""
        value = self.get(name)
        known = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}
        word = str(value).strip().lower()
        if word not in known:
            raise self.bad(name, f"expected true or false (or 1 or 0), found {shown(value)}")
        return known[word]

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
        return tuple(self._message(name, i, item, empty) for i, item in enumerate(value, 1))

    def _message(self, name: str, index: int, item: Any, empty: bool) -> Message:
        place = f"message {index}"
        if not isinstance(item, Mapping):
            raise self.bad(name, f"{place}: expected an object with role and content, found {shown(item)}")
        role, text = item.get("role", item.get("from")), item.get("content", item.get("value"))
        if not isinstance(role, str):
            raise self.bad(name, f"{place} has no role (keys: {', '.join(map(str, item))})", fix="give role and content")
        if role.lower() not in ROLES:
            raise self.bad(name, f"{place} has the unknown role '{role}'", fix=did_you_mean(role, ROLES))
        if isinstance(text, list) and all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in text):
            text = "".join(p["text"] for p in text)  # the parts of newer chat interfaces, text only
        if not isinstance(text, str):
            raise self.bad(name, f"{place}: expected text, found {shown(text)}", fix="only text turns can be trained on")
        if not empty and not text.strip():
            raise self.bad(name, f"{place} ({role}) is empty")
        return Message(ROLES[role.lower()], self._whole(name, text))

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
            try:
                made[name] = as_json(value)
            except TypeError as error:
                fix = "leave the column out (keep: [columns to keep]), or leave such rows out: on_bad_row: skip"
                raise BadRow(str(error), where=f"{self.place}, field '{name}'", fix=fix) from None
        return {name: value for name, value in made.items() if value is not None}


def look(data: Mapping[str, Any], column: str) -> Any:
    """A column, or a value inside one by a dotted path into objects and lists; None when it is not there.

    >>> look({"a": {"b": [10, 20]}}, "a.b.1")
    20
    """
    if column in data:
        return data[column]
    value: Any = data
    for part in column.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return None
    return value


def as_json(value: Any) -> Any:
    """The value in JSON's types: NaN as null, dates as ISO 8601, decimals as numbers. TypeError for all that has no such form.

    >>> as_json({"when": datetime.date(2024, 2, 29), "score": math.nan, "of": (1, 2)})
    {'when': '2024-02-29', 'score': None, 'of': [1, 2]}
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, decimal.Decimal):
        value = float(value)
    if isinstance(value, float):
        if math.isinf(value):
            raise TypeError("is infinite, which JSON cannot hold")
        return None if math.isnan(value) else value
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): as_json(item) for name, item in value.items()}
    raise TypeError(f"holds {type(value).__name__}, which JSON does not have")


def shown(value: Any) -> str:
    """A short picture of a value and its type.

    >>> shown(3), shown(["a"])
    ('3 (int)', "['a'] (list)")
    """
    text = repr(value)
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return text if value is None else f"{text} ({type(value).__name__})"
