from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from evenhand.configfile.schema import from_json, from_signature, load, to_json
from evenhand.configfile.validation_errors import Faults
from evenhand.errors import UserError


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    kind: Literal["file"] = "file"
    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    kind: Literal["world"] = "world"
    name: str
    size: Annotated[int, Field(gt=0)] = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    steps: int
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["linear", "cosine"] = "linear"
    packed: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    method: str
    train: Train | None = None
    colour: Colour = Colour.RED
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    data: Annotated[File | World, Field(discriminator="kind")]
    prompts: str | World = "all"
    seeds: tuple[int, ...] = (0,)
    arms: Mapping[str, Arm] = field(default_factory=dict)
    stages: tuple[Train, ...] = ()


DATA = "data: {kind: world, name: notes}\n"


def faults(text: str, *overrides: str) -> list[UserError]:
    with pytest.raises(UserError) as caught:
        load(Config, text, overrides)
    error = caught.value
    return list(error.faults) if isinstance(error, Faults) else [error]


def test_a_good_file_becomes_typed_values():
    loaded = load(Config, DATA + "seeds: [1, 2]\narms:\n  a: {method: dpo, train: {steps: 3, learning_rate: 1}, colour: blue}\n")
    train = Train(steps=3, learning_rate=1.0)
    assert loaded.value == Config(
        data=World(name="notes"), seeds=(1, 2), arms={"a": Arm(method="dpo", train=train, colour=Colour.BLUE)}
    )
    assert type(loaded.value.arms["a"].train.learning_rate) is float, "an integer is a number"
    assert loaded.given["seeds"] == [1, 2]
    assert loaded.effective["arms"]["a"]["train"]["schedule"] == "linear", "defaults are spelled out"
    assert loaded.document.where(("arms", "a", "train", "steps")) == "text:4: arms.a.train.steps"


def test_effective_values_are_json_and_load_back():
    value = load(Config, "data: {kind: file, path: a/b}\nstages: [{steps: 1}]\n").value
    text = json.dumps(to_json(value))
    assert from_json(Config, json.loads(text)) == value


# fmt: off
BAD = {
    "unknown key at the top":
        (DATA + "seed: [1]\n", "text:2: seed", "unknown key 'seed'", "did you mean 'seeds'"),
    "unknown key deep down":
        (DATA + "arms:\n  a:\n    method: x\n    train: {steps: 1, learing_rate: 1}\n",
         "text:5: arms.a.train.learing_rate", "unknown key 'learing_rate'", "did you mean 'learning_rate'"),
    "unknown key in a list":
        (DATA + "stages:\n- steps: 1\n- {steps: 2, pakced: true}\n", "text:4: stages.1.pakced", "unknown key", "'packed'"),
    "unknown key in a union":
        ("data: {kind: world, name: x, sise: 2}\n", "text:1: data.sise", "unknown key 'sise'", "'size'"),
    "key of another kind":
        ("data: {kind: world, name: x, path: y}\n", "text:1: data.path", "unknown key 'path'", "known: 'kind', 'name'"),
    "missing at the top":
        ("seeds: [1]\n", "text:1", "'data' is missing", "add `data:`"),
    "missing deep down":
        (DATA + "arms:\n  a:\n    train: {}\n    method: x\n", "text:4: arms.a.train", "'steps' is missing", "(an integer)"),
    "unknown kind":
        ("data: {kind: wrold, name: x}\n", "text:1: data.kind", "unknown kind 'wrold'", "did you mean 'world'"),
    "no kind":
        ("data: {name: x}\n", "text:1: data", "'kind' is missing", "add `kind:`"),
    "quoted number":
        (DATA + "stages: [{steps: '3'}]\n", "text:2: stages.0.steps", '"3" is not valid', "remove the quotes"),
    "fraction for an integer":
        (DATA + "seeds: [1.5]\n", "text:2: seeds.0", "1.5 is not valid", ""),
    "truth for an integer":
        (DATA + "seeds: [true]\n", "text:2: seeds.0", "true is not valid", ""),
    "number for truth":
        (DATA + "stages: [{steps: 1, packed: 1}]\n", "text:2: stages.0.packed", "1 is not valid", ""),
    "text for a mapping":
        (DATA + "arms: {a: dpo}\n", "text:2: arms.a", '"dpo" is not valid', ""),
    "mapping for a list":
        (DATA + "seeds: {a: 1}\n", "text:2: seeds", '{"a": 1} is not valid', ""),
    "too short":
        (DATA + "stages: [{steps: 1, betas: [0.9]}]\n", "text:2: stages.0.betas", "[0.9] is too short", "a list of 2"),
    "out of bounds":
        ("data: {kind: world, name: x, size: 0}\n", "text:1: data.size", "0 is not valid", ""),
    "no such choice":
        (DATA + "stages: [{steps: 1, schedule: cosin}]\n", "text:2: stages.0.schedule", '"cosin"', "did you mean 'cosine'"),
    "no such enum value":
        (DATA + "arms: {a: {method: m, colour: bleu}}\n", "text:2: arms.a.colour", '"bleu"', "did you mean 'blue'"),
    "empty value":
        (DATA + "seeds:\n", "text:2: seeds", "an empty value is not valid", "remove the key"),
    "untagged union, mapping meant":
        (DATA + "prompts: {nmae: x, name: y}\n", "text:2: prompts.nmae", "unknown key 'nmae'", "'name'"),
    "untagged union, nothing fits":
        (DATA + "prompts: [1]\n", "text:2: prompts", "[1] is not valid", ""),
}
# fmt: on


@pytest.mark.parametrize(("text", "where", "what", "fix"), BAD.values(), ids=BAD)
def test_one_fault_is_named_with_its_place_and_fix(text, where, what, fix):
    (fault,) = faults(text)
    assert fault.where.startswith(where)
    assert what in fault.what
    assert fix in fault.fix


def test_what_is_expected_is_said_in_plain_words():
    assert faults(DATA + "seeds: {a: 1}\n")[0].why == "it must be a list (each an integer)"
    assert faults(DATA + "prompts: [1]\n")[0].why == "it must be text or a mapping"
    assert faults("data: {kind: world, name: x, size: 0}\n")[0].why == "it should be greater than 0"


def test_all_faults_come_at_once_in_the_order_of_the_file():
    found = faults("data: {kind: world, name: 3}\narms:\n  a: {metod: x}\nseeds: [a]\nfoo: 1\n")
    assert [(f.where, f.what) for f in found] == [
        ("text:1: data.name", "3 is not valid"),
        ("text:3: arms.a", "'method' is missing"),
        ("text:3: arms.a.metod", "unknown key 'metod'"),
        ("text:4: seeds.0", '"a" is not valid'),
        ("text:5: foo", "unknown key 'foo'"),
    ]


def test_faults_of_the_command_line_say_so():
    (fault,) = faults(DATA, "data.sise=3")
    assert (fault.where, fault.fix) == ("command line: data.sise", "did you mean 'size'?")
    (fault,) = faults(DATA, "stage.0.steps=3")
    assert (fault.where, fault.fix) == ("command line: stage", "did you mean 'stages'?")
    assert load(Config, DATA, ["data.size=3", "seeds=[4]"]).value == Config(data=World(name="notes", size=3), seeds=(4,))


def test_faults_survive_the_trip_between_processes():
    import pickle

    error = Faults([UserError("a", where="x"), UserError("b", fix="y")])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@dataclass(frozen=True, kw_only=True)
class Checked:
    low: int = 0
    high: int = 1

    def __post_init__(self):
        if self.low < 0:
            raise UserError("low is negative", where="low", fix="use 0")

    def problems(self):
        if self.low > self.high:
            yield UserError("low is above high", where="low")
            yield UserError("high is below low", where="high")


def test_a_values_own_problems_get_their_lines():
    with pytest.raises(Faults) as caught:
        load(Checked, "high: 2\nlow: 3\n", problems=Checked.problems)
    assert [f.where for f in caught.value.faults] == ["text:2: low", "text:1: high"]
    with pytest.raises(UserError) as single:
        load(Checked, "low: -1\nhigh: 3\n")
    assert (single.value.where, single.value.fix) == ("text:1: low", "use 0")


def dpo(pairs: Any, *, beta: float = 0.1, label: Literal["a", "b"] = "a", steps: int, train: Train | None = None):
    """A method whose signature is a schema."""


def test_a_signature_fills_defaults_and_converts():
    given = {"steps": 3, "beta": 1, "train": {"steps": 2}}
    got = from_signature(dpo, given, "arms.x", skip=("pairs",))
    assert got == {"beta": 1.0, "label": "a", "steps": 3, "train": Train(steps=2)}
    assert type(got["beta"]) is float


def test_a_signature_takes_values_that_are_already_checked():
    assert from_signature(dpo, {"steps": 3, "train": Train(steps=2)}, "x", skip=("pairs",))["train"] == Train(steps=2)


def test_a_signature_names_all_faults():
    with pytest.raises(Faults) as caught:
        from_signature(dpo, {"bta": 1, "label": "c", "train": {"stps": 1}}, "arms.x", skip=("pairs",))
    found = {(f.where, f.what) for f in caught.value.faults}
    assert found == {
        ("arms.x.bta", "unknown key 'bta'"),
        ("arms.x.label", '"c" is not a choice here'),
        ("arms.x", "'steps' is missing"),
        ("arms.x.train", "'steps' is missing"),
        ("arms.x.train.stps", "unknown key 'stps'"),
    }


def test_a_signature_without_names_is_no_schema():
    with pytest.raises(TypeError, match="unnamed"):
        from_signature(lambda **anything: None, {}, "x")
