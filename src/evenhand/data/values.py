"""Values as files hold them: found by a path, brought into JSON's types, shown in a few words."""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections.abc import Mapping
from typing import Any

_SHOWN = 60
_HALF = re.compile("[\ud800-\udfff]")
_INDEX = re.compile(r"[0-9]{1,9}")


def look(data: Mapping[str, Any], column: str) -> Any:
    """A column, or a value inside one by a dotted path into objects and lists; None when it is not there.

    >>> look({"a": {"b": [10, 20]}}, "a.b.1")
    20
    """
    if not isinstance(data, Mapping):
        return None
    if column in data:
        return data[column]
    value: Any = data
    for part in column.split("."):
        if isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return None
    return value


def half_character(text: str) -> str:
    """Where a text holds half of a surrogate pair, as a JSON escape can leave it: no character that could be tokenised."""
    half = _HALF.search(text)
    return f"holds half of a character, \\u{ord(half.group()):04x}, at position {half.start() + 1}" if half else ""


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
    try:
        text = repr(value[: 2 * _SHOWN] if isinstance(value, str) else value)
    except (RecursionError, ValueError):  # nested without end, or a number of thousands of digits
        text = "..."
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return text if value is None else f"{text} ({type(value).__name__})"


def listed(names: Any, most: int = 20) -> str:
    """Names in one line, the first of many.

    >>> listed(["a", "b", "c"], most=2)
    'a, b, ...'
    """
    names = [shown_name(str(name)) for name in names]
    return ", ".join(names[:most] + ["..."] * (len(names) > most))


def shown_name(name: str) -> str:
    """A name that stands in a message: its first characters when it is very long."""
    return name if len(name) <= _SHOWN else name[: _SHOWN - 3] + "..."
