"""The record of defaults that keys are made with: `python -m evenhand.manual` adds what is new to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import signature
from typing import Any, get_args, get_type_hints

from evenhand.methods import METHODS
from evenhand.stages import KINDS, spec_class
from evenhand.store.fingerprint import decisive, default_of, recorded


def present() -> dict[str, dict[str, Any]]:
    """The defaults that fields of specs, and parameters of methods, have now."""
    found = {name: _method(name) for name in METHODS}
    owners = {owner.__name__: _fields(owner) for owner in sorted(_classes(), key=lambda owner: owner.__name__)}
    return {**owners, **{f"methods.{name}": defaults for name, defaults in sorted(found.items())}}


def completed(known: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The record with what is new; what it has stays, and what no longer exists goes."""
    return {
        owner: {name: known.get(owner, {}).get(name, default) for name, default in defaults.items()}
        for owner, defaults in present().items()
    }


def _classes() -> set[type]:
    """Every dataclass that a spec is made of."""
    found: set[type] = set()
    waiting = [spec_class(kind) for kind in KINDS]
    while waiting:
        owner = waiting.pop()
        if owner not in found:
            found.add(owner)
            waiting += [inner for hint in get_type_hints(owner).values() for inner in _inside(hint)]
    return found


def _inside(hint: Any) -> Iterator[type]:
    if is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for part in get_args(hint):
        yield from _inside(part)


def _fields(owner: type) -> dict[str, Any]:
    given = {f.name: default_of(f) for f in fields(owner) if f.metadata.get("decides", True)}
    return {name: decisive(default) for name, default in given.items() if default is not MISSING}


def _method(name: str) -> dict[str, Any]:
    parameters = signature(METHODS[name]).parameters.values()
    return {p.name: decisive(p.default) for p in parameters if p.default is not p.empty}


def text() -> str:
    """The record as the file has it, one owner a line."""
    lines = (f"{json.dumps(owner)}: {json.dumps(defaults)}" for owner, defaults in completed(recorded()).items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
