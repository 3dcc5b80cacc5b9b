"""Every key of an experiment file is described, the description is current, and editors get the same."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from evenhand.configfile.document import parse
from evenhand.errors import UserError
from evenhand.spec.aliases import ALIASES
from evenhand.spec.experiment import Experiment
from evenhand.spec.json_schema import json_schema
from evenhand.spec.keys import CLASSES, find, sections
from evenhand.spec.read import read_experiment

ROOT = Path(__file__).resolve().parents[2]
TEXT = {
    "name": "n", "initial_policy": "base", "data": {"world": "quickstart"},
    "model": {"pretrain": {"documents": 4, "train": {"steps": 1}}}, "train": {"steps": 1},
    "arms": {"base": {"method": "start"}, "dpo": {"method": "dpo"}, "rloo": {"method": "rloo", "reward": "gold"}},
}  # fmt: skip


@pytest.mark.parametrize("section", sections(), ids=lambda s: f"{s.path} {s.title}")
def test_every_key_has_a_meaning(section):
    nameless = [key.path for key in section.keys if len(key.meaning) < 4 or key.meaning[-1] not in ".)"]
    assert not nameless, "write what it means below the field (or in methods/meanings.py, rewards/meanings.py)"
    assert section.about or section.path in ("", "engine")


def test_no_mapping_of_a_file_is_left_out():
    listed = {cls for _, _, cls in CLASSES}
    own = {cls.__name__ for cls in _reached(Experiment)} - {cls.__name__ for cls in listed}
    assert own == {"OwnJudge"}, "what a plugin's judge becomes: a file never says it"


def _reached(cls: type) -> Iterator[type]:
    yield cls
    for hint in typing.get_type_hints(cls).values():
        yield from _dataclasses_in(hint)


def _dataclasses_in(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint):
        yield from _reached(hint)
    for part in typing.get_args(hint):
        yield from _dataclasses_in(part)


@pytest.mark.parametrize(("theirs", "ours"), sorted(ALIASES.items()))
def test_every_alias_leads_to_a_key(theirs, ours):
    assert ours == "--out" or find(ours), theirs


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"lr": 1e-4}, "write `learning_rate` under `train`"),
        ({"train": {"steps": 1, "lr": 1e-4}}, "write `learning_rate` under `train`"),
        ({"train": {"steps": 1, "per_device_train_batch_size": 8}}, "write `prompts_per_step` under `train` (it counts"),
        ({"arms": {"g": {"method": "grpo", "reward": "gold", "num_generations": 4}}}, "write `completions_per_prompt`"),
        ({"arms": {"g": {"method": "grpo", "reward": "gold", "beta": 0.04}}}, "the weight of the KL, `kl`"),
        ({"lengths": {"max_completion_length": 9}}, "write `completion` under `lengths`"),
        ({"arms": {"dpo": {"method": "dpo", "learning_rate": 1e-5}}}, "`learning_rate` belongs under `train`"),
        ({"train": {"steps": 1, "warmpu": 0.1}}, "did you mean 'warmup'?"),
    ],
)  # fmt: skip
def test_other_tools_keys_are_answered_with_ours(change, fix):
    with pytest.raises(UserError) as caught:
        read_experiment({**TEXT, **change})
    assert fix in str(caught.value)


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("train.warmup", ["train.warmup"]),
        ("arms.mine.train.warmup", ["train.warmup"]),
        ("evaluation.sampling.top_p", ["sampling.top_p"]),
        ("data.prompts.columns", ["data.SPLIT.columns"]),
        ("lr", ["train.learning_rate"]),
        ("lam", ["arms.NAME.lam"]),
    ],
)
def test_keys_are_found_by_what_people_type(query, paths):
    assert [f.key.path for f in find(query)] == paths


def test_a_key_that_nobody_knows_is_answered():
    with pytest.raises(UserError, match=r"did you mean train\.warmup"):
        find("train.warmpu")


# ---- the schema: a validator for what it uses ------------------------------------------------------------------------

SCHEMA = json_schema()
KINDS = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
    "object": Mapping,
    "array": list,
}


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value fits, by the keywords that this schema uses."""
    if "$ref" in schema and not fits(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]):
        return False
    kinds = schema.get("type", [])
    if kinds and not any(_is(value, k) for k in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "not" in schema and fits(value, schema["not"]):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "anyOf" in schema and not any(fits(value, s) for s in schema["anyOf"]):
        return False
    if not all(fits(value, s["then"]) for s in schema.get("allOf", ()) if fits(value, s["if"])):
        return False
    if isinstance(value, list) and not all(fits(v, schema.get("items", {})) for v in value):
        return False
    return not isinstance(value, Mapping) or _object_fits(value, schema)


def _object_fits(value: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    named = schema.get("propertyNames", {}).get("enum")
    other = {} if rest is True else rest
    inside = all(fits(v, known.get(k, other)) for k, v in value.items() if k in known or rest)
    extra = [k for k in value if k not in known]
    return inside and (rest is not False or not extra) and set(schema.get("required", ())) <= set(value) and (
        named is None or set(value) <= set(named)
    )  # fmt: skip


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


FILES = [*(ROOT / "examples").glob("*.yaml"), *(ROOT / "src/evenhand/builtin").glob("*.yaml")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_the_files_that_come_along_fit_the_schema(path):
    assert fits(parse(path.read_text(), path.name).data, SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"trian": {}}, {"train": {"stepps": 3}}, {"train": {"steps": "3"}}, {"arms": {"dpo": {"method": "dpo", "gamma": 1}}},
        {"model": {"dtype": 3}}, {"lengths": {"prompt": 1.5}}, {"data": {"world": 3}},
        {"train": {"keep_checkpoint": "worst"}}, {"sft": {"train": {"steps": 1}, "initial_policy": "base"}},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_a_run_refuses(change):
    assert fits(TEXT, SCHEMA)
    assert not fits({k: v for k, v in TEXT.items() if k != "data"}, SCHEMA)
    assert not fits({**TEXT, **change}, SCHEMA)
