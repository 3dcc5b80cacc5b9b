"""Configuration text as data that remembers where each value stands: YAML, `extends`, and `key.path=value` overrides.

The YAML is the 1.2 core schema, so that `1e-4` is a number and `no`, `on`, `010`, `1:30` mean what they look like. Keys are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evenhand.configfile.text_file import LONGEST, read_text
from evenhand.errors import UserError

KeyPath = tuple[str | int, ...]

COMMAND_LINE = "command line"
_REPLACED_BY_TAG = ("kind", "method")
_MERGE = "tag:yaml.org,2002:merge"
_RESERVED = "x-"
DEEPEST = 64
"""Levels of nesting, and files that extend one another."""
MOST = 50_000
"""Values of a document with its anchors written out."""


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


Change = Callable[[Document], Document]
"""What makes one document of another."""


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

    def fetch_flow_collection_start(self, token: type) -> None:
        """Brackets are bounded here already: the scanner's time goes with the square of their depth."""
        if self.flow_level >= DEEPEST:
            raise yaml.scanner.ScannerError(None, None, f"nested deeper than {DEEPEST} levels", self.get_mark())
        super().fetch_flow_collection_start(token)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    value = int(text, 0 if re.match(r"0[xo]", text) else 10) if len(text) <= 64 else 1 << 64
    if abs(value) >= 1 << 64:
        raise ValueError(f"a whole number of {len(text)} digits is too large")
    return value


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = node.value.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")
    value = float(text)
    if value in (float("inf"), -float("inf")) and "inf" not in text:
        raise ValueError("the number is too large")
    return value


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
_READ = {f"tag:yaml.org,2002:{name}": re.compile(f"(?:{pattern})") for name, pattern, *_ in _SCALARS if name != "merge"}
_KINDS = {yaml.MappingNode: "map", yaml.SequenceNode: "seq", yaml.ScalarNode: "str"}
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(text: str, name: str) -> Document:
    """YAML text (JSON is a subset) -> Document. Whatever cannot be read as that is a UserError with its line: duplicate keys,
    cycles, other tags than the core's, numbers that no computer counts with, nesting and anchors without end."""
    if len(text) > LONGEST:
        raise UserError(f"is longer than {LONGEST >> 20} MiB", where=name, fix="give a file of settings, not of data")
    loader = None
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
        code = error.character if isinstance(error.character, int) else ord(error.character)
        what = f"not readable as YAML: the character #x{code:04x} is not allowed"
        raise UserError(what, where=f"{name}:{line}", fix="remove it") from None
    except RecursionError:
        raise UserError("not readable as YAML: it is nested without end", where=name, fix="write it flatter") from None
    except (ValueError, OverflowError) as error:  # an escape that is no character
        line = loader.line + 1 if loader is not None else 1
        raise UserError(f"not readable as YAML: {error!s:.200}", where=f"{name}:{line}", fix="check the escapes") from None
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
    count: list[int] = field(default_factory=lambda: [0])

    def at(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.check(node)
        self.places.setdefault(path, self.at(node))
        self.open_nodes.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
            return self.scalar(node)
        finally:
            self.open_nodes.pop()

    def check(self, node: yaml.Node) -> None:
        """That the node has a tag that is read here, and that the whole ends."""
        if any(node is ancestor for ancestor in self.open_nodes):
            raise UserError("an anchor contains itself", where=self.at(node), fix="write the value out")
        if len(self.open_nodes) >= DEEPEST:
            raise UserError(f"it is nested deeper than {DEEPEST} levels", where=self.at(node), fix="write it flatter")
        self.count[0] += 1
        if self.count[0] > MOST:
            what = f"more than {MOST:,} values, anchors written out"
            raise UserError(what, where=self.at(node), fix="use fewer anchors, or put data into a file of its own")
        kind = _KINDS[type(node)]
        if node.tag != f"tag:yaml.org,2002:{kind}" and not (kind == "str" and node.tag in _READ):
            raise UserError(f"the tag {node.tag:.80} is not read here", where=self.at(node), fix="remove it")

    def text(self, node: yaml.ScalarNode) -> str:
        """The text of a scalar, checked against its tag: plain scalars have the one that they look like."""
        if _SURROGATE.search(node.value):
            raise UserError("half of a surrogate pair is no character", where=self.at(node), fix="write the character itself")
        if node.tag in _READ and not _READ[node.tag].fullmatch(node.value):
            raise UserError(f"{node.value!r:.60} is no {node.tag.rpartition(':')[2]}", where=self.at(node), fix="remove the tag")
        return node.value

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text = self.text(node)
        if node.tag not in _READ:
            return text
        try:
            return self.loader.construct_object(node)
        except ValueError as error:
            raise UserError(f"{node.value:.40}{'...' * (len(node.value) > 40)}: {error}", where=self.at(node)) from None

    def key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise UserError("a key must be plain text", where=self.at(node))
        self.check(node)
        return self.text(node)

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        lines: dict[str, str] = {}
        result: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value in node.value:
            if key_node.tag == _MERGE:
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            key = self.key(key_node)
            if key in lines:
                raise UserError(
                    f"key '{key_text((*path, key)):.200}' is given twice (first at {lines[key]})",
                    where=self.at(key_node),
                    why="one of the two values would be ignored",
                    fix="remove one of them",
                )
            lines[key] = self.at(key_node)
            self.places[(*path, key)] = self.at(key_node)
            result[key] = self.value(value, (*path, key))
        for source in merged:
            self.inherit(source, path, result)
        return result

    def inherit(self, source: yaml.Node, path: KeyPath, result: dict[str, Any]) -> None:
        """`<<: *anchor`: keys that are not given here come from there."""
        if not isinstance(source, yaml.MappingNode):
            raise UserError("`<<` needs a mapping", where=self.at(source))
        places: dict[KeyPath, str] = {}
        inherited = _Builder(self.loader, self.name, places, self.open_nodes, self.count).value(source, path)
        new = inherited.keys() - result.keys()
        result.update({key: value for key, value in inherited.items() if key in new})
        self.places.update({p: at for p, at in places.items() if len(p) > len(path) and p[len(path)] in new})


# --- extends and overrides -------------------------------------------------------------------------------------------


def as_it_stands(document: Document) -> Document:
    """The document itself."""
    return document


def read(path: Path, find: Callable[[str, Path], Path] | None = None, each: Change = as_it_stands) -> Document:
    """The file with everything it `extends` merged beneath it. `find(name, folder)` says where an extended name lies.

    `each` sees every file by itself, before one is merged over another.
    """
    return _Extends(find, each).read(path, ())


def extended(
    document: Document, folder: Path, find: Callable[[str, Path], Path] | None = None, each: Change = as_it_stands
) -> Document:
    """`document` merged over what it `extends` (a path relative to `folder`, or a list of them, later ones winning)."""
    return _Extends(find, each).extended(document, folder, ())


@dataclass(slots=True)
class _Extends:
    """Files that extend one another, each read once."""

    find: Callable[[str, Path], Path] | None
    each: Change
    known: dict[Path, Document] = field(default_factory=dict)

    def read(self, path: Path, chain: tuple[Path, ...]) -> Document:
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

    def extended(self, document: Document, folder: Path, chain: tuple[Path, ...]) -> Document:
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
        text, equals, value = setting.partition("=")
        path = key_path(text.strip())
        if not equals or not path:
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
                fix=f"use 0 to {len(data) - 1}, or give the whole list: {key_text(done):.200}=[...]",
            )
        index = int(number)
        item, full = _set(data[index], path[1:], value, (*done, index))
        return [*data[:index], item, *data[index + 1 :]], full
    if data is not None and not isinstance(data, dict):
        what = f"'{key_text(done):.200}' is {data!r:.80}, it has no '{key:.80}'"
        raise UserError(what, where=COMMAND_LINE, fix="check the key path")
    item, full = _set((data or {}).get(key), path[1:], value, (*done, key))
    return {**(data or {}), key: item}, full
