"""Documents over one another: what a file `extends` lies beneath it, and `key.path=value` overrides on top."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.configfile.document import COMMAND_LINE, DEEPEST, Document, KeyPath, key_path, key_text, parse
from evenhand.configfile.text_file import read_text
from evenhand.errors import UserError

_REPLACED_BY_TAG = ("kind", "method")
_RESERVED = "x-"
_SETTING = re.compile(r'((?:"[^"]*"|[^"=])*)=(.*)', re.DOTALL)
"""`key.path=value`; in quotes a key may hold what it likes."""
Change = Callable[[Document], Document]
"""What makes one document of another."""


def as_it_stands(document: Document) -> Document:
    """The document itself."""
    return document


@dataclass(slots=True)
class Extends:
    """Files that extend one another, each read once. `find(name, folder)` says where an extended name lies.

    `each` sees every file by itself, before one is merged over another.
    """

    find: Callable[[str, Path], Path] | None = None
    each: Change = as_it_stands
    known: dict[Path, Document] = field(default_factory=dict)

    def read(self, path: Path, chain: tuple[Path, ...] = ()) -> Document:
        """The file with everything it `extends` merged beneath it; `chain` are the files that lead here."""
        text = read_text(path)
        place = path.resolve()
        if place in chain:
            cycle = " -> ".join(p.name for p in (*chain, path))
            raise UserError(f"`extends` goes in a circle: {cycle}", where=str(path), fix="remove one of the `extends`")
        if len(chain) >= DEEPEST:
            what = f"more than {DEEPEST} files extend one another"
            raise UserError(what, where=str(path), fix="write some of them into one")
        if place not in self.known:
            self.known[place] = self.extended(parse(text, str(path)), path.parent, (*chain, place))
        return self.known[place]

    def extended(self, document: Document, folder: Path, chain: tuple[Path, ...] = ()) -> Document:
        """`document` merged over what it `extends` (a path relative to `folder`, or a list of them, later ones winning)."""
        if not isinstance(document.data, dict):
            raise UserError(
                "the file must be a mapping of keys to values", where=document.place(()), fix="begin with `name: my-experiment`"
            )
        data = {k: v for k, v in document.data.items() if k != "extends" and not k.startswith(_RESERVED)}
        bases = document.data.get("extends", [])
        names = [bases] if isinstance(bases, str) else bases
        where = document.where(("extends",))
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise UserError("`extends` must be a path or a list of paths", where=where)
        result = Document({})
        for name in names:
            base = self.find(name, folder) if self.find else folder / name
            if not _is_file(base):
                why = f"{base!s:.300} is no file"
                raise UserError(f"there is no '{name:.200}' to extend", where=where, why=why, fix="check the path")
            result = merge(result, self.read(base, chain))
        return merge(result, self.each(Document(data, document.places)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for a file
        return False


def merge(base: Document, over: Document) -> Document:
    """`over` on top of `base`: mappings merge key by key, anything else is replaced.

    A mapping whose `kind` or `method` changes, or that first gets a `kind`, is replaced as a whole: the old kind's keys mean
    nothing to the new one.
    """
    places = dict(base.places)
    data = _merged(base.data, over.data, (), places, over.places)
    return Document(data, places)


def _merged(base: Any, over: Any, path: KeyPath, places: dict[KeyPath, str], over_places: Mapping[KeyPath, str]) -> Any:
    if not _mergeable(base, over):
        for old in _paths(base, path):
            places.pop(old, None)
        places.update({p: over_places[p] for p in _paths(over, path) if p in over_places})
        return over
    if path in over_places:
        places[path] = over_places[path]
    result = dict(base)
    for key, value in over.items():
        result[key] = _merged(base.get(key), value, (*path, key), places, over_places)
    return result


def _paths(data: Any, path: KeyPath) -> Iterator[KeyPath]:
    """The key paths of a value and of everything in it."""
    yield path
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inside:
        yield from _paths(value, (*path, key))


def _mergeable(base: Any, over: Any) -> bool:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return False
    if "kind" in over and "kind" not in base:
        return False
    return all(base[tag] == over[tag] for tag in _REPLACED_BY_TAG if tag in base and tag in over)


def override(document: Document, settings: Iterable[str], todays: Callable[[KeyPath], KeyPath] = tuple) -> Document:
    """Applies `key.path=value` settings in order. Values are YAML; a number names a list entry.

    `todays` gives the key path that a given one stands for.
    """
    for setting in settings:
        found = _SETTING.fullmatch(setting)
        text, value = found.groups() if found else ("", "")
        path = key_path(text.strip())
        if not path:
            raise UserError(f"'{setting:.200}' is not key.path=value", where=COMMAND_LINE, fix="for example train.steps=50")
        if len(path) > DEEPEST:
            what = f"'{setting:.80}...' names a key {len(path)} levels deep"
            raise UserError(what, where=COMMAND_LINE, fix=f"the deepest key has {DEEPEST} levels")
        given = parse(value, f"{COMMAND_LINE}: {text.strip():.200}").data if value.strip() else None
        data, path = _set(document.data, todays(path), given, ())
        places = {p: at for p, at in document.places.items() if p[: len(path)] != path}
        for end in range(1, len(path)):  # mappings that the override brings into being
            places.setdefault(path[:end], COMMAND_LINE)
        document = Document(data, {**places, path: COMMAND_LINE})
    return document


def _set(data: Any, path: Sequence[str | int], value: Any, done: KeyPath) -> tuple[Any, KeyPath]:
    """A copy of `data` with `value` at `path`, and the path with list indices as numbers."""
    if not path:
        return value, done
    key = path[0]
    if isinstance(data, list):
        number = str(key)
        if not (number.isdecimal() and len(number) < 10 and int(number) < len(data)):
            raise UserError(
                f"'{key_text(done):.200}' is a list of {len(data)}; '{key:.80}' is not one of its entries",
                where=COMMAND_LINE,
                fix=(f"use 0 to {len(data) - 1}, or " if data else "") + f"give the whole list: {key_text(done):.200}=[...]",
            )
        index = int(number)
        item, full = _set(data[index], path[1:], value, (*done, index))
        return [*data[:index], item, *data[index + 1 :]], full
    if data is not None and not isinstance(data, dict):
        what = f"'{key_text(done):.200}' is {data!r:.80}, it has no '{key:.80}'"
        raise UserError(what, where=COMMAND_LINE, fix="check the key path")
    item, full = _set((data or {}).get(key), path[1:], value, (*done, key))
    return {**(data or {}), key: item}, full
