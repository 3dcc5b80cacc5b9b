"""What a source may not say: values of the wrong kind, and keys that would do nothing."""

import json

import pytest

from evenhand.data.load import load
from evenhand.errors import UserError


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"}) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("split", "test", "data sets of the Hub and folders"),
        ("revision", "main", "data sets of the Hub"),
        ("streaming", True, "data sets of the Hub"),
        ("field", "data", ".json files"),
        ("opening_words", 4, "running text"),
        ("separator", "##", "running text"),
    ],
)
def test_a_key_without_effect_is_refused(rows, key, value, what):
    with pytest.raises(UserError, match="has no effect here") as error:
        load({"path": rows, key: value})
    assert error.value.where == f"data.{key}"
    assert what in error.value.what


def test_a_split_of_a_folder_that_holds_one_data_set(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"prompt": "q"}]).save_to_disk(str(tmp_path / "one"))
    with pytest.raises(UserError, match="there is no split 'test'"):
        load({"path": str(tmp_path / "one"), "split": "test"})


@pytest.mark.parametrize(
    ("given", "where", "what"),
    [
        ({"columns": {"prompt": 3}}, "data.columns, 3", "the name of a column"),
        ({"columns": {"promt": "prompt"}}, "data.columns", "no format has a field 'promt'"),
        ({"keep": [1]}, "data.keep, 1", "the name of a column"),
        ({"margin": float("nan")}, "data.margin", "expected a number, found nan"),
        ({"path": ""}, "data.path", "expected a path"),
    ],
)
def test_values_of_the_wrong_kind(rows, given, where, what):
    with pytest.raises(UserError) as error:
        load({"path": rows, **given})
    assert error.value.where == where
    assert what in error.value.what


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"mix": [1]}, "data.mix"),
        ({"size": "ten"}, "data.size"),
        ({"temperature": "hot"}, "data.temperature"),
        ({"local": ["x"]}, "data.local"),
        ({"mix": [{"path": "x.jsonl", "weight": "heavy"}]}, "data.mix[0].weight"),
        ({"mix": [{"path": "x.jsonl", "cap": 1.5}]}, "data.mix[0].cap"),
    ],
)
def test_mixtures_of_the_wrong_kind(rows, given, where):
    with pytest.raises(UserError, match="expected") as error:
        load({"mix": [{"path": rows}], **given})
    assert error.value.where == where


@pytest.mark.parametrize("source", [3, ["rows.jsonl"], None])
def test_a_source_that_is_none(source):
    with pytest.raises(UserError, match="expected"):
        load(source)


@pytest.mark.parametrize("name", [3, None, ["shp"]])
def test_a_recipe_that_is_none(name):
    with pytest.raises(UserError, match="unknown recipe"):
        load({"recipe": name})


@pytest.mark.parametrize(
    ("step", "place", "what"),
    [
        ({"keep": 3}, "keep", "a test or a list of tests"),
        ({"keep": {"column": "score", "above": "x"}}, "keep.above", "a number"),
        ({"keep": {"column": "score", "in": 3}}, "keep.in", "a list"),
        ({"keep": [{"column": 3, "is": 1}]}, "keep.column", "text"),
        ({"keep": {"column": "score", "present": "yes"}}, "keep.present", "true or false"),
        ({"rename": {"a": 3}}, "rename.a", "text"),
        ({"fill": {"prompt": 3}}, "fill.prompt", "text"),
        ({"split": {"column": "prompt", "at": "", "into": ["a", "b"]}}, "split.at", "the text to cut at"),
        ({"split": {"column": "prompt", "at": "#", "into": ["a"]}}, "split.into", "the names of two columns"),
        ({"split": {"column": "prompt", "at": "#", "into": "ab"}}, "split.into", "the names of two columns"),
        ({"remove": {"column": 3, "pattern": "a"}}, "remove.column", "text"),
        ({"collect": {"by": "prompt", "text": "a", "score": 3}}, "collect.score", "a column or a list of columns"),
        ({"answers": {"list": "a", "text": "t", "unscored": "-"}}, "answers.unscored", "a list"),
    ],
)
def test_options_of_steps_of_the_wrong_kind(rows, step, place, what):
    with pytest.raises(UserError) as error:
        load({"path": rows, "steps": [step]})
    assert error.value.where == f"data.steps[0].{place}"
    assert f"expected {what}, found" in error.value.what


def test_a_column_may_be_named_as_an_option_is(rows):
    source = {"path": rows, "steps": [{"rename": {"at": "prompt"}}, {"rename": {"prompt": "at"}}]}
    assert load(source).prompts[0].content == "q"


@pytest.mark.parametrize(
    ("key", "value"), [("threshold", "a"), ("threshold", 1.5), ("threshold", 0), ("ngram", "x"), ("ngram", 0), ("against", 3)]
)
def test_options_of_cleaning_of_the_wrong_kind(rows, key, value):
    with pytest.raises(UserError, match="is not a") as error:
        load({"path": rows, "clean": {key: value}})
    assert error.value.where == f"data.clean.{key}"
