"""Keys that were called otherwise before: a file that has them is still read, with one line that says today's name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from evenhand.configfile.document import COMMAND_LINE, Document, KeyPath, key_text
from evenhand.errors import UserError

FORMER: Mapping[tuple[str, ...], str] = {
    ("start",): "initial_policy",
    ("arms", "*", "start"): "initial_policy",
    ("reward_models", "*", "start"): "initial_policy",
    ("train", "keep"): "keep_checkpoint",
    ("arms", "*", "train", "keep"): "keep_checkpoint",
    ("sft", "train", "keep"): "keep_checkpoint",
    ("model", "pretrain", "train", "keep"): "keep_checkpoint",
    ("reward_models", "*", "train", "keep"): "keep_checkpoint",
}
"""Where a key stood (`*` is any name) -> its name of today, at the same place."""
_TOLD = "%s is now called '%s'; the old name goes with the next release"
_log = logging.getLogger(__name__)


def renamed(document: Document) -> Document:
    """A file with today's keys. Raises: UserError where a former key stands beside its successor in it.

    Each file by itself, before one is merged over another: a key of the later one wins whatever the earlier one calls it.
    """
    changes = {old: (*old[:-1], new) for pattern, new in FORMER.items() for old in _found(document.data, pattern)}
    for old, new in changes.items():
        _warn(document, old, new)
    data = document.data
    for old, new in changes.items():
        data = _moved(data, old, new[-1])
    places = {_place_of_today(path, changes): place for path, place in document.places.items()}
    return Document(data, places, document.prefix)


def todays(path: KeyPath) -> KeyPath:
    """The key path of an override, with today's name of its last key.

    >>> todays(("arms", "dpo", "train", "keep"))
    ('arms', 'dpo', 'train', 'keep_checkpoint')
    """
    for pattern, name in FORMER.items():
        if len(pattern) == len(path) and all(part in ("*", key) for part, key in zip(pattern, path, strict=True)):
            new = (*path[:-1], name)
            _log.warning(_TOLD, f"{COMMAND_LINE}: {key_text(path)}", key_text(new))
            return new
    return path


def _found(data: Any, pattern: tuple[str, ...], at: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key path of the data that the pattern fits."""
    if not pattern:
        yield at
    elif isinstance(data, Mapping):
        for name in data if pattern[0] == "*" else {pattern[0]} & data.keys():
            yield from _found(data[name], pattern[1:], (*at, name))


def _warn(document: Document, old: KeyPath, new: KeyPath) -> None:
    if new in document.places or _holds(document.data, new):
        raise UserError(
            f"`{old[-1]}` and `{new[-1]}` are one key, and both are given", where=document.where(old),
            why=f"the other stands at {document.where(new)}", fix=f"remove `{old[-1]}`, which is the former name",
        )  # fmt: skip
    _log.warning(_TOLD, document.where(old), key_text(new))


def _holds(data: Any, path: KeyPath) -> bool:
    for key in path:
        if not isinstance(data, Mapping) or key not in data:
            return False
        data = data[key]
    return True


def _moved(data: Mapping[Any, Any], old: KeyPath, name: str | int) -> dict[Any, Any]:
    """The mapping with the key at `old` called `name`, in its place among the others."""
    first, *rest = old
    if not rest:
        return {name if key == first else key: value for key, value in data.items()}
    return {key: _moved(value, tuple(rest), name) if key == first else value for key, value in data.items()}


def _place_of_today(path: KeyPath, changes: Mapping[KeyPath, KeyPath]) -> KeyPath:
    for old, new in changes.items():
        if path[: len(old)] == old:
            return (*new, *path[len(old) :])
    return path
