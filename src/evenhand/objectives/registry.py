"""Objectives by name. Registering one enters it into the JSON form, the docs table and the battery of tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from evenhand.registry import Registry

C = TypeVar("C", bound=type)
OBJECTIVES = Registry[Callable[..., Any]]("objective", named_by=("kind",))


def objective(name: str, *, revision: int = 0) -> Callable[[C], C]:
    """Class decorator: the frozen dataclass below is the objective called `name`; `revision`: see `registry.revisions`."""

    def add(cls: C) -> C:
        OBJECTIVES.register(name, revision=revision)(cls)
        cls.kind = name  # type: ignore[attr-defined]
        return cls

    return add


def to_json(objective: Any) -> Any:
    """The objective as JSON: `{"kind": name, field: value, ...}`, nested objectives included."""
    kind = getattr(type(objective), "kind", None)
    if kind is not None and is_dataclass(objective):
        return {"kind": kind, **{f.name: to_json(getattr(objective, f.name)) for f in fields(objective)}}
    if isinstance(objective, Mapping):
        return {k: to_json(v) for k, v in objective.items()}
    if isinstance(objective, tuple | list):
        return [to_json(v) for v in objective]
    return objective


def from_json(data: Any) -> Any:
    """The inverse of `to_json`; an unknown kind is a UserError."""
    if isinstance(data, Mapping) and "kind" in data:
        made = OBJECTIVES.find(data["kind"], where="kind")
        return made(**{k: from_json(v) for k, v in data.items() if k != "kind"})
    if isinstance(data, Mapping):
        return {k: from_json(v) for k, v in data.items()}
    if isinstance(data, list):
        return tuple(from_json(v) for v in data)
    return data
