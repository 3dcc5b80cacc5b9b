"""An experiment file as JSON schema, for editors: what may stand where, with the meaning of every key."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from evenhand.configfile.field_docs import field_docs
from evenhand.configfile.schema import to_json
from evenhand.data.source import DataSource
from evenhand.engines.registry import ENGINES
from evenhand.methods import METHODS
from evenhand.methods.meanings import meaning
from evenhand.rewards.registry import REWARDS
from evenhand.spec.arms import BEST_OF_N, INJECTED, START, Arm, best_of_n
from evenhand.spec.experiment import Experiment
from evenhand.spec.keys import HIDDEN
from evenhand.spec.pretrained import Adopted
from evenhand.train.config import SamplingConfig, Train

Schema = dict[str, Any]


def json_schema() -> Schema:
    """The whole schema (draft 2020-12). Keys that a plugin brings are let pass where plugins may bring some."""
    made = _Schemas()
    file = made.object_of(Experiment)
    ref = made.ref
    arms = {"type": "object", "additionalProperties": made.arm()}
    models = {"type": "object", "additionalProperties": {"anyOf": [ref(Adopted), made.arm()]}}
    others = ({"type": "object", "required": [key]} for key in ("mix", "recipe"))
    source = {"anyOf": [{"type": "string"}, ref(DataSource), *others]}
    reward = {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"kind": {"enum": [*REWARDS]}}}]}
    own: dict[str, Schema] = {
        "train": ref(Train), "sampling": ref(SamplingConfig), "arms": arms, "reward_models": models,
        "sft": {**made.arm(), "not": {"required": ["initial_policy"]}},
        "rewards": {"type": "object", "additionalProperties": reward},
        "engine": {"anyOf": [{"enum": [*ENGINES]}, {"type": ["string", "object"]}]},
    }  # fmt: skip
    for name, given in own.items():
        file["properties"][name] = {**given, "description": file["properties"][name].get("description", "")}
    file["properties"]["extends"] = {"type": ["string", "array"], "description": "Files that this one changes."}
    file["properties"]["judge"] = {"anyOf": [file["properties"]["judge"], {"type": "object", "required": ["kind"]}]}
    made.defs["DataSource"]["properties"]["path"]["type"] = ["string", "array"]
    for split in ("demonstrations", "preferences", "prompts", "heldout_preferences", "heldout_prompts"):
        data = made.defs["DataConfig"]["properties"]
        data[split] = {**source, "description": data[split]["description"]}
    needed = [{"required": file.pop("required")}, {"required": ["extends"]}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "evenhand experiment",
        "description": "Written by `evenhand keys --json-schema`.", **file, "anyOf": needed,
        "$defs": made.defs,
    }  # fmt: skip


class _Schemas:
    """Dataclasses as definitions, each made once."""

    def __init__(self) -> None:
        self.defs: dict[str, Schema] = {}

    def ref(self, cls: type) -> Schema:
        if cls.__name__ not in self.defs:
            self.defs[cls.__name__] = {}
            self.defs[cls.__name__] = self.object_of(cls)
        return {"$ref": f"#/$defs/{cls.__name__}"}

    def object_of(self, cls: type) -> Schema:
        hints, docs = get_type_hints(cls), field_docs(cls)
        fields = [f for f in dataclasses.fields(cls) if f.init and f.name not in HIDDEN.get(cls, ())]
        properties = {f.name: self._documented(hints[f.name], docs.get(f.name, ""), f.default) for f in fields}
        required = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def arm(self) -> Schema:
        """An arm: its own keys, and those of its method. An unknown method is a plugin's, whose keys are free."""
        if "Arm" not in self.defs:
            functions: dict[str, Callable[..., Any]] = {**METHODS, BEST_OF_N: best_of_n}
            keys = self.object_of(Arm)["properties"]
            keys["method"]["anyOf"] = [{"enum": [START, *functions]}, {"type": "string"}]
            own = [self._of_method(name, [*keys], functions.get(name)) for name in (START, *functions)]
            self.defs["Arm"] = {"type": "object", "properties": keys, "allOf": own}
        return {"$ref": "#/$defs/Arm"}

    def _of_method(self, name: str, keys: list[str], function: Callable[..., Any] | None) -> Schema:
        hints = get_type_hints(function) if function is not None else {}
        known = inspect.signature(function).parameters.values() if function is not None else ()
        more = {
            p.name: self._documented(hints[p.name], meaning(name, p.name, inspect.getdoc(function) or ""), p.default)
            for p in known
            if p.name not in INJECTED
        }
        chosen = {"properties": {"method": {"const": name}}, "required": ["method"]}
        return {"if": chosen, "then": {"properties": more, "propertyNames": {"enum": [*keys, *more]}}}

    def _documented(self, hint: Any, text: str, default: Any) -> Schema:
        made = {**self.type_of(hint), "description": text}
        plain = default is None or isinstance(default, str | int | float | bool | tuple)
        return {**made, "default": to_json(default)} if plain and default == default and finite(default) else made

    def type_of(self, hint: Any) -> Schema:
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.type_of(a) for a in args]}
        if origin is typing.Literal:
            return {"enum": [*args]}
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return self.ref(hint)
        kind = origin or hint
        if isinstance(kind, type) and issubclass(kind, Mapping):
            return {"type": "object", "additionalProperties": self.type_of(args[1]) if args else True}
        if kind is tuple:
            return {"type": "array", "items": self.type_of(args[0])}
        return {k: {"type": v} for k, v in _PLAIN.items()}.get(hint, {})


_PLAIN: Mapping[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def finite(value: Any) -> bool:
    """Whether JSON has a word for a default.

    >>> finite(float("inf")), finite(3)
    (False, True)
    """
    return not isinstance(value, float) or abs(value) < float("inf")
