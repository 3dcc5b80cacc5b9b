"""Configuration text as data that remembers where each value stands: YAML.

The YAML is the 1.2 core schema, so that `1e-4` is a number and `no`, `on`, `010`, `1:30` mean what they look like. Keys are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from evenhand.configfile.text_file import LONGEST
from evenhand.errors import UserError

KeyPath = tuple[str | int, ...]

COMMAND_LINE = "command line"
_MERGE = "tag:yaml.org,2002:merge"
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
