"""Settings that are made to hurt: each is one message that names its place, and none takes long or much."""

from __future__ import annotations

import os
import random

import pytest

from evenhand.configfile.document import DEEPEST, MOST, Document, parse
from evenhand.configfile.layers import Extends, merge, override
from evenhand.configfile.schema import check
from evenhand.configfile.text_file import LONGEST
from evenhand.errors import UserError
from evenhand.judges import template
from evenhand.spec.experiment import Experiment


def bomb(levels, width=10):
    """Anchors of anchors: `width ** levels` values in a few hundred characters."""
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    return "\n".join([*lines, *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels))])


REFUSED = {
    "x: !!int abc": "'abc' is no int",
    "x: !!float abc": "'abc' is no float",
    "x: !!bool maybe": "'maybe' is no bool",
    "x: !!null something": "'something' is no null",
    "x: !!int {a: 1}": "the tag tag:yaml.org,2002:int is not read here",
    "x: !!str [a]": "the tag tag:yaml.org,2002:str is not read here",
    "x: !!timestamp abc": "timestamp is not read here",
    "x: !!timestamp 2020-01-01": "timestamp is not read here",
    "x: !!binary abc": "binary is not read here",
    "x: !!set {a}": "set is not read here",
    "x: !!omap [a: 1]": "omap is not read here",
    "x: !!python/object/apply:os.system [ls]": "is not read here",
    "!!int abc: 1": "'abc' is no int",
    f"x: {'9' * 5000}": "a whole number of 5000 digits is too large",
    f"x: 0x{'f' * 5000}": "is too large",
    f"x: -{2**64}": "is too large",
    "x: 1e999": "the number is too large",
    'x: "\\ud800"': "half of a surrogate pair|not readable",
    'x: "\\U99999999"': "not readable as YAML",
    bomb(9): f"more than {MOST:,} values",
    "\n".join(
        ["m0: &m0 {k0: 1}"] + [f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}], k{i}: 1}}" for i in range(1, 60)]
    ): "more than|nested",
    "[" * 100_000: "nested",
    "x: " + "{a: " * 500: "nested",
    "- " * 3000 + "x": "nested",
    "\n".join(" " * i + "k:" for i in range(DEEPEST + 5)): "nested deeper than",
    "x: &a [*a]": "contains itself",
    "x: &a {<<: *a}": "contains itself|needs a mapping",
    "x: " + "y" * LONGEST: "is longer than 1 MiB",
    "a" * 900 + ": 1\n" + "a" * 900 + ": 2": "is given twice",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda t: t[:40])
def test_a_text_that_is_made_to_hurt_is_one_short_message(text):
    with pytest.raises(UserError, match=REFUSED[text]) as error:
        parse(text, "f.yaml")
    assert "f.yaml" in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("text", "value"),
    [("!!int 3", 3), ("!!float 3", 3.0), ("!!str 3", "3"), ("!!bool true", True), ("!!null ~", None), ("!!seq [1]", [1]),
     ("!!map {a: 1}", {"a": 1}), (str(2**64 - 1), 2**64 - 1), (".inf", float("inf")), ("1e308", 1e308)],
)  # fmt: skip
def test_core_tags_and_large_numbers_stay_what_they_are(text, value):
    found = parse(f"x: {text}", "f").data["x"]
    assert found == value
    assert type(found) is type(value)


def test_anchors_that_are_used_as_meant_still_work():
    data = parse("a: &a {k: 1, l: [1, 2]}\nb: {<<: *a, k: 2}\nc: *a", "f").data
    assert data == {"a": {"k": 1, "l": [1, 2]}, "b": {"k": 2, "l": [1, 2]}, "c": {"k": 1, "l": [1, 2]}}


OVERRIDES = {
    ".".join("a" * 5000) + "=1": "names a key 5000 levels deep",
    "x" * 5000: "is not key.path=value",
    "seeds.²=1": "is not one of its entries",
    "seeds." + "9" * 5000 + "=1": "is not one of its entries",
    "name.x=1": "it has no 'x'",
    "x=!!int abc": "'abc' is no int",
    "x=" + "[" * 5000: "nested",
    "x=" + "9" * 5000: "is too large",
    "=1": "is not key.path=value",
}


@pytest.mark.parametrize("setting", OVERRIDES, ids=lambda t: t[:40])
def test_an_override_that_is_made_to_hurt_is_one_short_message(setting):
    with pytest.raises(UserError, match=OVERRIDES[setting]) as error:
        override(Document({"seeds": [0, 1], "name": "n"}), [setting])
    assert len(str(error.value)) < 1500


def test_an_experiment_of_the_wrong_types_is_messages_only():
    data = parse("name: [1]\narms: 3\njudge: !!str x\n" + "k" * 1000 + ": 1", "f.yaml")
    with pytest.raises(UserError) as error:
        check(Experiment, data)
    assert len(str(error.value)) < 5000
    with pytest.raises(UserError, match="cannot be read"):
        check(Experiment, Document({"name": 10**5000}))


def test_files_that_are_none_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", tmp_path, "/dev/zero"):
        with pytest.raises(UserError, match="is not a file"):
            Extends().read(type(tmp_path)(path))
        with pytest.raises(UserError, match="is not a file"):
            template.get(str(path))
    (tmp_path / "long.yaml").write_bytes(b"x" * (LONGEST + 1))
    (tmp_path / "packed.yaml").write_bytes(bytes(random.Random(0).randrange(256) for _ in range(500)))
    for name, words in (("long.yaml", "longer than 1 MiB"), ("packed.yaml", "is not UTF-8"), ("none.yaml", "cannot be read"),
                        ("n" * 5000, "cannot be read")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            Extends().read(tmp_path / name)
    (tmp_path / "a.yaml").write_text("extends: pipe.yaml\nname: a")
    with pytest.raises(UserError, match=r"there is no 'pipe\.yaml' to extend"):
        Extends().read(tmp_path / "a.yaml")


def test_files_that_extend_one_another_are_read_once_each(tmp_path):
    """Two to the power of 40 readings, if each were read where it is named."""
    (tmp_path / "0.yaml").write_text("name: x\nseeds: [1]")
    for i in range(1, 41):
        (tmp_path / f"{i}.yaml").write_text(f"extends: [{i - 1}.yaml, {i - 1}.yaml]\nk{i}: {i}")
    assert len(Extends().read(tmp_path / "40.yaml").data) == 42
    for i in range(41, 80):
        (tmp_path / f"{i}.yaml").write_text(f"extends: {i - 1}.yaml")
    with pytest.raises(UserError, match="files extend one another"):
        Extends().read(tmp_path / "79.yaml")


def test_merging_keeps_the_places_of_what_stays():
    base = parse("a: {x: 1, y: [1, 2]}\nb: {kind: k, z: 1}", "base")
    over = parse("a: {y: [3]}\nb: {kind: other}", "over")
    merged = merge(base, over)
    assert merged.data == {"a": {"x": 1, "y": [3]}, "b": {"kind": "other"}}
    assert merged.places[("a", "x")] == "base:1"
    assert merged.places[("a", "y", 0)] == "over:1"
    assert ("a", "y", 1) not in merged.places
    assert ("b", "z") not in merged.places


# --- judge templates -------------------------------------------------------------------------------------------------

GOOD = "name: t\nkind: pair\nuser: '{question} {answer_a} {answer_b}'\npatterns: ['([AB])']\nlabels: {A: 1, B: 0}\n"
TEMPLATES = {
    "[1, 2]": "a template is a mapping",
    "3": "a template is a mapping",
    GOOD.replace("name: t", "name: [t]"): "`name` is .* give a text",
    GOOD.replace("kind: pair", "kind: 3"): "`kind` is 3",
    GOOD.replace("['([AB])']", "3"): "`patterns` is 3",
    GOOD.replace("['([AB])']", "'([AB])'"): "`patterns` is .* give a list",
    GOOD.replace("['([AB])']", "[]"): "`patterns` is",
    GOOD.replace("['([AB])']", "[[1]]"): "`patterns` is",
    GOOD.replace("['([AB])']", "['(((((']"): "no regular expression",
    GOOD.replace("{A: 1, B: 0}", "[A, B]"): "`labels` is",
    GOOD.replace("{A: 1, B: 0}", "{A: one}"): "`labels` is",
    GOOD.replace("{A: 1, B: 0}", "{A: .nan}"): "`labels` is",
    GOOD.replace("{A: 1, B: 0}", "{A: 3, B: 0}"): "label 'A' has the value 3",
    GOOD + "variants: {A: 3}": "`variants` is",
    GOOD + "variants: {A: [x], B: [x]}": "one token spells two labels",
    GOOD + "scale: 3": "`scale` is 3",
    GOOD + "scale: [a, b]": "`scale` is",
    GOOD + "scale: [10, 1]": "`scale` is",
    GOOD + "max_tokens: many": "`max_tokens` is 'many'",
    GOOD + "max_tokens: 0": "`max_tokens` is 0",
    GOOD + "reference: 3": "`reference` is 3",
    GOOD + "follows: {a: 1}": "`follows` is",
    GOOD + "system: !!timestamp 2020-01-01": "timestamp is not read here",
    bomb(9): "more than",
}


@pytest.mark.parametrize("text", TEMPLATES, ids=lambda t: t[-40:])
def test_a_judge_template_of_wrong_types_is_one_short_message(text):
    with pytest.raises(UserError, match=f"(?s){TEMPLATES[text]}") as error:
        template.parse(text, where="t.yaml")
    assert "t.yaml" in str(error.value)
    assert len(str(error.value)) < 1000


def test_labels_may_look_like_numbers():
    found = template.parse(GOOD.replace("[AB]", "[12]").replace("{A: 1, B: 0}", "{1: 1, 2: 0}"), where="t")
    assert found.read("I say 2") == ("2", 0.0)


def test_a_pattern_that_never_ends_is_stopped():
    found = template.parse(GOOD.replace("['([AB])']", "['((?:A+)+)B']"), where="t")
    with pytest.raises(UserError, match="takes too long"):
        found.read("A" * 5000)


def test_what_a_pattern_finds_and_is_no_number_is_no_grade():
    found = template.parse(
        "name: t\nkind: single\nuser: '{question} {answer}'\npatterns: ['grade (\\w+)']\nscale: [1, 10]", where="t"
    )
    assert found.read("grade eight") is None
    assert found.read("grade 8") == ("8", 8.0)
    assert found.read("grade " + "9" * 400) is None
