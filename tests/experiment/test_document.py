from __future__ import annotations

import math

import pytest

from evenhand.configfile.document import Document, key_path, key_text, parse
from evenhand.configfile.layers import Extends, merge, override
from evenhand.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E3", 5000.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("1_000", 1000),
        ("010", 10),
        ("0x10", 16),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("1:30", "1:30"),
        ("2024-01-02", "2024-01-02"),
        ("'3'", "3"),
        (".inf", math.inf),
        ("~", None),
        ("", None),
        ("1e", "1e"),
        ("v1.0", "v1.0"),
    ],
)
def test_scalars_mean_what_they_look_like(text, value):
    got = parse(f"x: {text}", "f").data["x"]
    assert got == value
    assert type(got) is type(value)


def test_keys_are_text_whatever_they_look_like():
    assert parse("{1: a, on: b, 1e3: c}", "f").data == {"1": "a", "on": "b", "1e3": "c"}


def test_a_duplicate_key_names_both_lines():
    with pytest.raises(UserError) as caught:
        parse("a:\n  b: 1\n  c: 2\n  b: 3\n", "exp.yaml")
    assert caught.value.where == "exp.yaml:4"
    assert "'a.b' is given twice (first at exp.yaml:2)" in caught.value.what


def test_a_tab_is_named_with_its_line():
    with pytest.raises(UserError) as caught:
        parse("a: 1\nb:\n\tc: 2\n", "exp.yaml")
    assert caught.value.where == "exp.yaml:3"
    assert "tabs" in caught.value.fix


def test_anchors_and_merge_keys():
    data = parse("a: &x {p: 1, q: 2}\nb: *x\nc: {<<: *x, q: 3}\nd: {<<: [{p: 5, r: 1}, *x]}\n", "f").data
    assert data["b"] == {"p": 1, "q": 2}
    assert data["c"] == {"p": 1, "q": 3}
    assert data["d"] == {"p": 5, "q": 2, "r": 1}, "of several merged mappings the first wins"


def test_an_anchor_inside_itself_is_refused():
    with pytest.raises(UserError, match="contains itself"):
        parse("a: &x [1, *x]\n", "f")


def test_unsafe_tags_are_refused():
    with pytest.raises(UserError, match="is not read here"):
        parse("a: !!python/object/apply:os.system ['true']\n", "f")
    with pytest.raises(UserError, match="is not read here"):
        parse("a: !mine 3\n", "f")


def test_every_value_knows_its_line():
    document = parse("a:\n  - 1\n  - b: 2\nc: {d: 3}\n", "f")
    assert document.place(("a", 1, "b")) == "f:3"
    assert document.place(("c", "d")) == "f:4"
    assert document.place(("c", "missing")) == "f:4", "the closest given ancestor"
    assert document.where(("c", "d")) == "f:4: c.d"


def test_extends_merges_deeply_and_keeps_both_files_lines(tmp_path):
    (tmp_path / "base.yaml").write_text("train: {steps: 10, rate: 1e-3}\nseeds: [0, 1, 2]\n")
    (tmp_path / "exp.yaml").write_text("extends: base.yaml\n\ntrain:\n  steps: 20\nseeds: [7]\n")
    document = Extends().read(tmp_path / "exp.yaml")
    assert document.data == {"train": {"steps": 20, "rate": 1e-3}, "seeds": [7]}
    assert document.place(("train", "steps")) == f"{tmp_path / 'exp.yaml'}:4"
    assert document.place(("train", "rate")) == f"{tmp_path / 'base.yaml'}:1"
    assert document.place(("seeds", 0)) == f"{tmp_path / 'exp.yaml'}:5"


def test_of_several_bases_the_later_wins(tmp_path):
    (tmp_path / "a.yaml").write_text("x: 1\ny: 1\n")
    (tmp_path / "b.yaml").write_text("y: 2\n")
    (tmp_path / "exp.yaml").write_text("extends: [a.yaml, b.yaml]\nz: 3\n")
    assert Extends().read(tmp_path / "exp.yaml").data == {"x": 1, "y": 2, "z": 3}


@pytest.mark.parametrize("tag", ["kind", "method"])
def test_another_kind_replaces_the_whole_mapping(tag):
    base = parse(f"data: {{{tag}: file, path: x}}", "a")
    assert merge(base, parse(f"data: {{{tag}: world, name: y}}", "b")).data == {"data": {tag: "world", "name": "y"}}
    assert merge(base, parse(f"data: {{{tag}: file, n: 1}}", "b")).data == {"data": {tag: "file", "path": "x", "n": 1}}


def test_a_mapping_that_gets_a_kind_is_replaced(tmp_path):
    (tmp_path / "base.yaml").write_text("judge: {reward: gold, tie: 0.5}\n")
    (tmp_path / "own.yaml").write_text("extends: base.yaml\njudge: {kind: human, labels: out.jsonl}\n")
    found = Extends().read(tmp_path / "own.yaml")
    assert found.data["judge"] == {"kind": "human", "labels": "out.jsonl"}
    assert found.where(("judge", "labels")).startswith(str(tmp_path / "own.yaml"))


def test_extends_in_a_circle_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(UserError, match=r"a\.yaml -> b\.yaml -> a\.yaml"):
        Extends().read(tmp_path / "a.yaml")


def test_a_missing_base_is_named_where_it_is_asked_for(tmp_path):
    (tmp_path / "a.yaml").write_text("x: 1\nextends: nowhere.yaml\n")
    with pytest.raises(UserError) as caught:
        Extends().read(tmp_path / "a.yaml")
    assert caught.value.where == f"{tmp_path / 'a.yaml'}:2: extends"


def test_keys_beginning_with_x_hold_anchors(tmp_path):
    (tmp_path / "a.yaml").write_text("x-common: &c {steps: 3}\ntrain: *c\n")
    assert Extends().read(tmp_path / "a.yaml").data == {"train": {"steps": 3}}


def test_overrides_set_values_lists_and_new_mappings():
    document = parse("a: {b: 1}\nseeds: [0, 1]\nnothing:\n", "f")
    settings = ["a.b=2e-5", "seeds.1=9", "new.deep.key=[1, two]", "nothing.x=true", "a.c="]
    changed = override(document, settings)
    assert changed.data == {
        "a": {"b": 2e-5, "c": None},
        "seeds": [0, 9],
        "new": {"deep": {"key": [1, "two"]}},
        "nothing": {"x": True},
    }
    assert changed.place(("a", "b")) == "command line"
    assert changed.place(("seeds", 1)) == "command line"
    assert changed.place(("seeds", 0)) == "f:2"
    assert document.data == {"a": {"b": 1}, "seeds": [0, 1], "nothing": None}, "the document itself is unchanged"


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("steps", "is not key.path=value"),
        ("=3", "is not key.path=value"),
        ("seeds.2=1", "list of 2; '2' is not"),
        ("seeds.x=1", "list of 2; 'x' is not"),
        ("a.b.c=1", "'a.b' is 1, it has no 'c'"),
        ("a.b=[1", "not readable as YAML"),
    ],
)
def test_bad_overrides_are_named(setting, what):
    with pytest.raises(UserError, match="command line") as caught:
        override(parse("a: {b: 1}\nseeds: [0, 1]\n", "f"), [setting])
    assert what in caught.value.what


def test_an_equals_sign_in_quotes_belongs_to_the_key():
    given = Document({"arms": {"beta=0.1": {"steps": 1}}})
    assert override(given, ['arms."beta=0.1".steps=3', 'name="a=b"', "note=a=b"]).data == {
        "arms": {"beta=0.1": {"steps": 3}}, "name": "a=b", "note": "a=b",
    }  # fmt: skip
    with pytest.raises(UserError, match=r"""'arms."beta=3' is not key.path=value"""):
        override(given, ['arms."beta=3'])


def test_key_paths_round_trip():
    for path in [("a", "b"), ("arms", "dpo-0.1", "beta"), ("arms", "two words", "x")]:
        assert key_path(key_text(path)) == path


def test_an_empty_file_is_an_empty_mapping():
    assert parse("# only a comment\n", "f") == Document({}, {(): "f"})


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\nb: x\x07y", "f.yaml:2", "#x0007 is not allowed"),
        ("a: " + "[" * 5000 + "]" * 5000, "f.yaml:1", "nested deeper than 64 levels"),
    ],
)
def test_what_yaml_itself_gives_up_on(text, where, what):
    with pytest.raises(UserError) as error:
        parse(text, "f.yaml")
    assert error.value.where == where
    assert what in error.value.what
    assert "\n" not in error.value.what
