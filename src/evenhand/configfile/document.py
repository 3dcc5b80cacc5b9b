"""Configuration text as data that remembers where each value stands: YAML, `extends`, and `key.path=value` overrides.

The YAML is the 1.2 core schema, so that `1e-4` is a number and `no`, `on`, `010`, `1:30` mean what they look like. Keys are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evenhand.errors import UserError

KeyPath = tuple[str | int, ...]

COMMAND_LINE = "command line"
_REPLACED_BY_TAG = ("kind", "method")
_MERGE = "tag:yaml.org,2002:merge"
_RESERVED = "x-"


@dataclass(frozen=True, slots=True)
class Document:
    """JSON-like `data`, and for every key path the place ("file:line" or "command line") that set it.

    `prefix` is the key path of `data` itself, when it is a part of something larger.
    """

    data: Any
    places: Mapping[KeyPath, str] = field(default_factory=dict)
    prefix: KeyPath = ()

    def place(self, path: KeyPath) -> str:
        """The place of the value at `path`, or of its closest ancestor that was given."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return ""

    def where(self, path: KeyPath) -> str:
        """Place and key path in one phrase, for an error's `where`."""
        return ": ".join(part for part in (self.place(path), key_text((*self.prefix, *path))) if part)


def key_text(path: KeyPath) -> str:
    """A key path as it is written in an override.

    >>> key_text(("arms", "dpo", "seeds", 0)), key_text(("arms", "beta 0.1", "steps"))
    ('arms.dpo.seeds.0', 'arms."beta 0.1".steps')
    """
    return ".".join(f'"{p}"' if isinstance(p, str) and re.search(r"[.\s=]", p) else str(p) for p in path)


def key_path(text: str) -> KeyPath:
    """The inverse of `key_text`: segments between dots, quotes protect dots, digits are list indices only inside a list.

    >>> key_path('arms."dpo-0.1".beta')
    ('arms', 'dpo-0.1', 'beta')
    """
    return tuple(quoted or bare for quoted, bare in re.findall(r'"([^"]*)"|([^."]+)', text))


# --- YAML ------------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """SafeLoader with the YAML 1.2 core schema for plain scalars."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (PyYAML's own protocol: a fresh table instead of the YAML 1.1 one)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value.replace("_", ""), 0 if re.match(r"0[xo]", node.value) else 10)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(node.value.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: tuple[tuple[str, str, str, Callable | None], ...] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF", None),
    ("null", r"~|null|Null|NULL|", "~nN", None),
    ("int", r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789", _int),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
        _float,
    ),
    ("merge", r"<<", "<", None),
)
for _name, _pattern, _first, _construct in _SCALARS:
    _tag = f"tag:yaml.org,2002:{_name}"
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), [*_first, ""] if _name == "null" else list(_first))
    if _construct is not None:
        _Loader.add_constructor(_tag, _construct)


def parse(text: str, name: str) -> Document:
    """YAML text (JSON is a subset) -> Document. Duplicate keys, cycles and unknown tags are UserErrors with their line."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        places: dict[KeyPath, str] = {}
        if node is None:
            return Document({}, {(): name})
        data = _Builder(loader, name, places).value(node, ())
    except yaml.MarkedYAMLError as error:
        raise _yaml_error(error, name) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"not readable as YAML: the character #x{error.character:04x} is not allowed"
        raise UserError(what, where=f"{name}:{line}", fix="remove it") from None
    except RecursionError:
        raise UserError("not readable as YAML: it is nested without end", where=name, fix="write it flatter") from None
    return Document(data, places)


def _yaml_error(error: yaml.MarkedYAMLError, name: str) -> UserError:
    mark = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}" if mark else name
    what = " ".join(p for p in (error.context, error.problem) if p)
    fix = "indent with spaces, not tabs" if "\\t" in what else "check colons, quotes and indentation near this line"
    return UserError(f"not readable as YAML: {what}", where=where, fix=fix)


@dataclass(slots=True)
class _Builder:
    """Turns composed YAML nodes into plain values and records the line of each."""

    loader: _Loader
    name: str
    places: dict[KeyPath, str]
    open_nodes: list[yaml.Node] = field(default_factory=list)

    def at(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        if any(node is ancestor for ancestor in self.open_nodes):
            raise UserError("an anchor contains itself", where=self.at(node), fix="write the value out")
        if node.tag.startswith("!") or "python/" in node.tag:
            raise UserError(f"the tag {node.tag} is not read here", where=self.at(node), fix="remove it")
        self.places.setdefault(path, self.at(node))
        self.open_nodes.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
            return self.loader.construct_object(node)
        finally:
            self.open_nodes.pop()

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        lines: dict[str, str] = {}
        result: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag == _MERGE:
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise UserError("a key must be plain text", where=self.at(key))
            if key.value in lines:
                first = lines[key.value]
                raise UserError(
                    f"key '{key_text((*path, key.value))}' is given twice (first at {first})",
                    where=self.at(key),
                    why="one of the two values would be ignored",
                    fix="remove one of them",
                )
            lines[key.value] = self.at(key)
            self.places[(*path, key.value)] = self.at(key)
            result[key.value] = self.value(value, (*path, key.value))
        for source in merged:
            self.inherit(source, path, result)
        return result

    def inherit(self, source: yaml.Node, path: KeyPath, result: dict[str, Any]) -> None:
        """`<<: *anchor`: keys that are not given here come from there."""
        if not isinstance(source, yaml.MappingNode):
            raise UserError("`<<` needs a mapping", where=self.at(source))
        places: dict[KeyPath, str] = {}
        inherited = _Builder(self.loader, self.name, places, self.open_nodes).value(source, path)
        for key in inherited.keys() - result.keys():
            result[key] = inherited[key]
            self.places.update({p: at for p, at in places.items() if p[: len(path) + 1] == (*path, key)})


# --- extends and overrides -------------------------------------------------------------------------------------------


def read(path: Path, find: Callable[[str, Path], Path] | None = None, _chain: tuple[Path, ...] = ()) -> Document:
    """The file with everything it `extends` merged beneath it. `find(name, folder)` says where an extended name lies."""
    if path.resolve() in _chain:
        cycle = " -> ".join(p.name for p in (*_chain, path))
        raise UserError(f"`extends` goes in a circle: {cycle}", where=str(path), fix="remove one of the `extends`")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path), fix="check the path") from None
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", where=str(path), fix="save the file as UTF-8") from None
    return extended(parse(text, str(path)), path.parent, find, (*_chain, path.resolve()))


def extended(
    document: Document, folder: Path, find: Callable[[str, Path], Path] | None = None, _chain: tuple[Path, ...] = ()
) -> Document:
    """`document` merged over what it `extends` (a path relative to `folder`, or a list of them, later ones winning)."""
    if not isinstance(document.data, dict):
        raise UserError(
            "the file must be a mapping of keys to values", where=document.place(()), fix="begin with `name: my-experiment`"
        )
    data = {k: v for k, v in document.data.items() if k != "extends" and not k.startswith(_RESERVED)}
    document, bases = Document(data, document.places), document.data.get("extends", [])
    names = [bases] if isinstance(bases, str) else bases
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise UserError("`extends` must be a path or a list of paths", where=document.where(("extends",)))
    result = Document({})
    for name in names:
        base = find(name, folder) if find else folder / name
        if not base.is_file():
            raise UserError(
                f"there is no '{name}' to extend",
                where=document.where(("extends",)),
                why=f"{base} is no file",
                fix="check the path",
            )
        result = merge(result, read(base, find, _chain))
    return merge(result, document)


def merge(base: Document, over: Document) -> Document:
    """`over` on top of `base`: mappings merge key by key, anything else is replaced.

    A mapping whose `kind` or `method` changes is replaced as a whole: the old kind's keys mean nothing to the new one.
    """
    places = dict(base.places)
    data = _merged(base.data, over.data, (), places, over.places)
    return Document(data, places)


def _merged(base: Any, over: Any, path: KeyPath, places: dict[KeyPath, str], over_places: Mapping[KeyPath, str]) -> Any:
    if not _mergeable(base, over):
        for old in [p for p in places if p[: len(path)] == path]:
            del places[old]
        places.update({p: at for p, at in over_places.items() if p[: len(path)] == path})
        return over
    if path in over_places:
        places[path] = over_places[path]
    result = dict(base)
    for key, value in over.items():
        result[key] = _merged(base.get(key), value, (*path, key), places, over_places)
    return result


def _mergeable(base: Any, over: Any) -> bool:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return False
    return all(base[tag] == over[tag] for tag in _REPLACED_BY_TAG if tag in base and tag in over)


def override(document: Document, settings: Iterable[str]) -> Document:
    """Applies `key.path=value` settings in order. Values are YAML; a number names a list entry."""
    for setting in settings:
        text, equals, value = setting.partition("=")
        path = key_path(text.strip())
        if not equals or not path:
            raise UserError(f"'{setting}' is not key.path=value", where=COMMAND_LINE, fix="for example train.steps=50")
        given = parse(value, f"{COMMAND_LINE}: {setting}").data if value.strip() else None
        data, path = _set(document.data, path, given, ())
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
        if not str(key).isdigit() or int(key) >= len(data):
            raise UserError(
                f"'{key_text(done)}' is a list of {len(data)}; '{key}' is not one of its entries",
                where=COMMAND_LINE,
                fix=f"use 0 to {len(data) - 1}, or give the whole list: {key_text(done)}=[...]",
            )
        index = int(key)
        item, full = _set(data[index], path[1:], value, (*done, index))
        return [*data[:index], item, *data[index + 1 :]], full
    if data is not None and not isinstance(data, dict):
        raise UserError(f"'{key_text(done)}' is {data!r}, it has no '{key}'", where=COMMAND_LINE, fix="check the key path")
    item, full = _set((data or {}).get(key), path[1:], value, (*done, key))
    return {**(data or {}), key: item}, full
