"""A judge template's file: its keys and their types, before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from evenhand.configfile.document import parse
from evenhand.errors import UserError, did_you_mean

MOST = 256
"""Patterns, labels, or spellings of one label."""


def fields(text: str, *, where: str) -> dict[str, Any]:
    """The fields of a `Template` from YAML text. UserError for what is no mapping, unknown, missing, or of another type."""
    raw = parse(text, where).data
    if not isinstance(raw, Mapping):
        raise UserError("a template is a mapping", where=where, fix="give `kind:`, `user:`, `patterns:` and `labels:`")
    for key in raw:
        if key not in _READ:
            raise UserError(f"unknown key '{key:.80}'", where=where, fix=did_you_mean(key, _READ))
    for key in ("name", "kind", "user", "patterns"):
        if key not in raw:
            raise UserError(f"'{key}' is missing", where=where, fix=f"add `{key}:`")
    found = {}
    for key, value in raw.items():
        read, needed = _READ[key]
        try:
            found[key] = read(value)
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"`{key}` is {value!r:.60}", where=where, fix=f"give {needed}") from None
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _word(value: Any) -> str:
    """A text, or what a text without quotes is read as: a number, `true`."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else _text(value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST:
        raise TypeError(value)
    return tuple(_word(v) for v in value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(value)
    return value


def _mapping_of(read: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    def mapping(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or len(value) > MOST:
            raise TypeError(value)
        return {_text(k): read(v) for k, v in value.items()}

    return mapping


def _scale(value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or _number(value[0]) >= _number(value[1]):
        raise TypeError(value)
    return (value[0], value[1])


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise TypeError(value)
    return value


_READ: dict[str, tuple[Callable[[Any], Any], str]] = {
    "name": (_text, "a text"),
    "kind": (_text, "pair or single"),
    "user": (_text, "a text with the places `{question}`, `{answer_a}` and `{answer_b}`, or `{answer}`"),
    "system": (_text, "a text"),
    "patterns": (_texts, "a list of regular expressions"),
    "labels": (_mapping_of(_number), "a mapping from labels to numbers, such as {A: 1, B: 0}"),
    "variants": (_mapping_of(_texts), "a mapping from labels to lists of texts"),
    "scale": (_scale, "two numbers, the lower one first"),
    "max_tokens": (_count, "a whole number of tokens"),
    "reference": (_text, "the name of a prompt's field"),
    "follows": (_text, "a text"),
}
