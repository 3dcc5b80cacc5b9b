"""An experiment file as JSON schema, for editors: what may stand where, with the meaning of every key."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import make_dataclass
from typing import Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import override

from evenhand.data.config import SPLITS
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
    made = _definitions(Experiment, Arm, Adopted, DataSource, Train, SamplingConfig)
    arm, methods = made["Arm"], dict[str, Callable[..., Any]]({**METHODS, BEST_OF_N: best_of_n})
    arm["properties"]["method"]["anyOf"] = [{"enum": [START, *methods]}, {"type": "string"}]
    own = [_of_method(name, [*arm["properties"]], methods.get(name)) for name in (START, *methods)]
    made["Arm"] = {"type": "object", "properties": arm["properties"], "allOf": own}
    made["DataSource"]["properties"]["path"]["type"] = ["string", "array"]
    others = ({"type": "object", "required": [key]} for key in ("mix", "recipe"))
    source = {"anyOf": [{"type": "string"}, _ref(DataSource), *others]}
    _put(made["DataConfig"]["properties"], dict.fromkeys(SPLITS, source))
    file = made.pop("Experiment")
    keys = file["properties"]
    _put(keys, {
        "train": _ref(Train), "sampling": _ref(SamplingConfig), "arms": _by_name(_ref(Arm)),
        "reward_models": _by_name({"anyOf": [_ref(Adopted), _ref(Arm)]}),
        "sft": {**_ref(Arm), "not": {"required": ["initial_policy"]}},
        "rewards": _by_name({"anyOf": [{"type": "string"}, {"type": "object", "properties": {"kind": {"enum": [*REWARDS]}}}]}),
        "engine": {"anyOf": [{"enum": [*ENGINES]}, {"type": ["string", "object"]}]},
    })  # fmt: skip
    keys["extends"] = {"type": ["string", "array"], "description": "Files that this one changes."}
    keys["judge"] = {"anyOf": [keys["judge"], {"type": "object", "required": ["kind"]}]}
    needed = [{"required": file.pop("required")}, {"required": ["extends"]}]
    return {
        **file, "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "evenhand experiment",
        "description": "Written by `evenhand keys --json-schema`.", "anyOf": needed, "$defs": made,
    }  # fmt: skip


class _Untitled(GenerateJsonSchema):
    """A key's name says as much as its title would."""

    @override
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _definitions(*classes: type) -> dict[str, Schema]:
    """Dataclasses, and those inside them, by their names; the text below a field is its description."""
    config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)
    made = TypeAdapter(tuple[classes], config=config).json_schema(schema_generator=_Untitled)["$defs"]  # type: ignore[valid-type]
    for cls, names in HIDDEN.items():
        for name in names if cls.__name__ in made else ():
            del made[cls.__name__]["properties"][name]
    return made


def _of_method(name: str, keys: list[str], function: Callable[..., Any] | None) -> Schema:
    """What an arm of a method takes: its own keys and the method's. An unknown method is a plugin's, whose keys are free."""
    more: Schema = {}
    if function is not None:
        hints, text = get_type_hints(function), inspect.getdoc(function) or ""
        own = [p for p in inspect.signature(function).parameters.values() if p.name not in INJECTED]
        told = {p.name: Field(... if p.default is p.empty else p.default, description=meaning(name, p.name, text)) for p in own}
        fields = [(key, hints[key], default) for key, default in told.items()]
        more = _definitions(make_dataclass("Method", fields, kw_only=True))["Method"]["properties"]
    chosen = {"properties": {"method": {"const": name}}, "required": ["method"]}
    return {"if": chosen, "then": {"properties": more, "propertyNames": {"enum": [*keys, *more]}}}


def _put(keys: Schema, given: Schema) -> None:
    """Other schemas for some keys, whose descriptions stay."""
    for name, schema in given.items():
        keys[name] = {**schema, "description": keys[name].get("description", "")}


def _by_name(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def _ref(cls: type) -> Schema:
    return {"$ref": f"#/$defs/{cls.__name__}"}
