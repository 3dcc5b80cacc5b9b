"""What a type accepts and what its fields mean, read from annotations and from the text below each field."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from evenhand.configfile.document import KeyPath

_WORDS = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
    type(None): "nothing",
    Any: "anything",
}


def known_keys(tp: Any, path: KeyPath, data: Any) -> set[str]:
    """The keys a mapping at `path` inside `tp` may have; `data` (the value given for `tp`) picks the branch of a union."""
    found: set[str] = set()
    for branch in _branches(tp, data):
        if path:
            inner = _inside(branch, path[0])
            found |= known_keys(inner, path[1:], _item(data, path[0])) if inner is not None else set()
        elif dataclasses.is_dataclass(branch):
            found |= {f.name for f in dataclasses.fields(branch) if f.init}
    return found


def type_at(tp: Any, path: KeyPath, data: Any) -> Any:
    """The annotation of the value at `path` inside `tp`, or None where it has none."""
    if not path:
        return tp
    for branch in _branches(tp, data):
        inner = _inside(branch, path[0])
        if inner is not None:
            return type_at(inner, path[1:], _item(data, path[0]))
    return None


def words(tp: Any) -> str:
    """A type in plain words, for messages.

    >>> words(float), words(tuple[int, ...]), words(tuple[float, float]), words(Literal["a", "b"]), words(float | None)
    ('a number', 'a list (each an integer)', 'a list of 2 (each a number)', "one of 'a', 'b'", 'a number or nothing')
    """
    tp = _bare(tp)
    origin, args = typing.get_origin(tp), typing.get_args(tp)
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(a) for a in args))
    if isinstance(tp, type) and issubclass(tp, enum.Enum):
        return "one of " + ", ".join(repr(m.value) for m in tp)
    if _is(origin or tp, Mapping) or dataclasses.is_dataclass(tp):
        return "a mapping"
    if (origin or tp) is not str and _is(origin or tp, Sequence):
        items = [words(a) for a in args if a is not Ellipsis]
        count = f" of {len(items)}" if origin is tuple and Ellipsis not in args else ""
        return f"a list{count} (each {items[0]})" if len(set(items)) == 1 else f"a list{count}"
    return _WORDS.get(tp, getattr(tp, "__name__", str(tp)))


def _branches(tp: Any, data: Any) -> list[Any]:
    """The members of a union (of one, if it is none) that `data` may mean, judged by its literal-valued keys."""
    tp = _bare(tp)
    is_union = typing.get_origin(tp) in (typing.Union, types.UnionType)
    members = [b for a in typing.get_args(tp) for b in _branches(a, data)] if is_union else [tp]
    meant = [m for m in members if not _contradicts(m, data)]
    return meant or members


def _contradicts(tp: Any, data: Any) -> bool:
    if not (dataclasses.is_dataclass(tp) and isinstance(data, Mapping)):
        return False
    hints = typing.get_type_hints(tp)
    tags = {k: typing.get_args(hints[k]) for k in data.keys() & hints.keys() if typing.get_origin(hints[k]) is Literal}
    return any(data[k] not in allowed for k, allowed in tags.items())


def _inside(tp: Any, key: str | int) -> Any:
    """The annotation of `tp`'s item `key`."""
    origin, args = typing.get_origin(tp), typing.get_args(tp)
    if dataclasses.is_dataclass(tp):
        return typing.get_type_hints(tp, include_extras=True).get(str(key))
    if _is(origin, Mapping) and len(args) == 2:
        return args[1]
    if _is(origin, Sequence) and args:
        return args[min(int(key), len(args) - 1)] if isinstance(key, int) and Ellipsis not in args else args[0]
    return None


def _item(data: Any, key: str | int) -> Any:
    if isinstance(data, Mapping):
        return data.get(key)
    inside = isinstance(data, (list, tuple)) and isinstance(key, int) and key < len(data)
    return data[key] if inside else None


def _bare(tp: Any) -> Any:
    while typing.get_origin(tp) is Annotated:
        tp = typing.get_args(tp)[0]
    return tp


def _is(tp: Any, kind: type) -> bool:
    return isinstance(tp, type) and issubclass(tp, kind)


_UNIT = re.compile(r"\s*In (?P<unit>[a-z ]+)\.$")


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Field -> the text below it, on one line; fields without one are left out. Bases come first."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if "__dataclass_fields__" in vars(base):
            found |= _below(base)
    return found


def _below(cls: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return {
        item.target.id: " ".join(after.value.value.split())
        for item, after in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


def parted(text: str) -> tuple[str, str]:
    """A meaning and its unit, which the last sentence says; "" for a number without one.

    >>> parted("Longest prompt. In tokens."), parted("Rows at most.")
    (('Longest prompt.', 'tokens'), ('Rows at most.', ''))
    """
    found = _UNIT.search(text)
    return (text[: found.start()], found["unit"]) if found else (text, "")
