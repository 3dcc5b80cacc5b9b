import json

import pytest

from evenhand.data.load import load
from evenhand.errors import UserError

ROW = {"q": "hi", "n": 3, "flag": True, "who": "a", "a": "A", "b": "B", "tags": ["x", "y"], "deep": {"list": [{"x": "y"}]}}


def loaded(tmp_path, rows, steps, **more):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load({"path": str(path), "steps": steps, **more})


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ({"column": "n", "above": 2}, True),
        ({"column": "n", "above": 3}, False),
        ({"column": "n", "at_least": 3}, True),
        ({"column": "n", "below": 3}, False),
        ({"column": "n", "above": 2, "below": 3}, False),
        ({"column": "flag", "is": True}, True),
        ({"column": "flag", "is": 1}, False),
        ({"column": "who", "is_not": "a"}, False),
        ({"column": "who", "in": ["a", "b"]}, True),
        ({"column": "flag", "in": [1]}, False),
        ({"column": "tags", "every_in": ["x", "y", "z"]}, True),
        ({"column": "tags", "every_in": ["x", "z"]}, False),
        ({"column": "a", "same_as": "b"}, False),
        ({"column": "missing", "present": False}, True),
        ({"column": "deep.list.0.x", "is": "y"}, True),
        ({"column": "deep.list.1.x", "present": True}, False),
        ([{"column": "n", "is": 3}, {"column": "who", "is": "z"}], False),
    ],
)
def test_keep(tmp_path, condition, kept):
    other = {**ROW, "q": "always"}
    steps = [{"rename": {"prompt": "q"}}]
    rows = [ROW, other]
    conditions = condition if isinstance(condition, list) else [condition]
    data = loaded(tmp_path, rows, [{"keep": conditions}, *steps]) if kept else None
    if data is None:
        with pytest.raises(UserError, match="holds no usable rows"):
            loaded(tmp_path, rows, [{"keep": conditions}, *steps])
    else:
        assert [g.prompt.content for g in data.groups] == ["hi", "always"]


def test_rows_left_out_are_counted_in_the_line(tmp_path):
    rows = [{"prompt": str(i), "n": i} for i in range(10)]
    data = loaded(tmp_path, rows, [{"keep": {"column": "n", "at_least": 7}}])
    assert [g.prompt.content for g in data.groups] == ["7", "8", "9"]
    assert "3 rows, fields: prompt (in meta: n); 7 rows left out by keep" in data.description


def test_fill_and_pair_and_ties(tmp_path):
    steps = [
        {"pair": {"first": "a", "second": "b", "winner": "who", "first_is": "a", "second_is": "b", "ties": ["tie"]}},
        {"fill": {"prompt": "Q: {q} {deep.list.0.x}"}},
    ]
    rows = [ROW, {**ROW, "who": "tie"}, {**ROW, "who": "b"}]
    data = loaded(tmp_path, rows, steps, format="prompt/chosen/rejected")
    assert [[c.content for c in g.completions] for g in data.groups] == [["A", "B"], ["B", "A"]]
    assert data.groups[0].prompt.content == "Q: hi y"


@pytest.mark.parametrize(
    ("step", "bad", "where", "finding"),
    [
        ({"keep": {"column": "n", "above": 2}}, {"n": "many"}, "field 'n'", "expected a number"),
        ({"pair": {"first": "a", "second": "b", "winner": "who", "first_is": "a", "second_is": "b"}}, {"who": "x"}, "field 'who'",
         "expected 'a' or 'b', found 'x'"),
        ({"fill": {"text": "{q}"}}, {"q": None}, "field 'q'", "is null"),
        ({"rename": {"text": "q"}}, {"q": None}, "field 'q'", "is null"),
        ({"answers": {"list": "deep.list", "text": "x"}}, {"deep": {"list": 3}}, "field 'deep.list'", "expected a list"),
    ],
)  # fmt: skip
def test_a_row_that_a_step_cannot_read_is_named_or_skipped(tmp_path, step, bad, where, finding):
    rows = [{**ROW, "prompt": "p"}, {**ROW, "prompt": "p", **bad}]
    with pytest.raises(UserError) as error:
        loaded(tmp_path, rows, [step], format="prompt")
    assert error.value.where == f"r.jsonl:2, {where}"
    assert finding in error.value.what
    assert len(loaded(tmp_path, rows, [step], format="prompt", on_bad_row="skip").skipped) == 1


@pytest.mark.parametrize(
    ("steps", "finding"),
    [
        ("keep", "expected a list"),
        ([{"keep": {}, "fill": {}}], "expected one step"),
        ([{"keeep": {}}], "unknown step 'keeep'"),
        ([{"keep": {"above": 2}}], "the step needs column"),
        ([{"keep": {"column": "n", "abov": 2}}], "unknown option 'abov'"),
        ([{"pair": {"first": "a"}}], "the step needs second, winner"),
        ([{"collect": {"by": "q", "text": "a", "scores": "n"}}], "unknown option 'scores'"),
        ([{"rename": ["a"]}], "expected options as a mapping"),
    ],
)
def test_wrong_steps_are_refused_before_reading(tmp_path, steps, finding):
    with pytest.raises(UserError) as error:
        loaded(tmp_path, [ROW], steps)
    assert finding in error.value.what
    assert error.value.where.startswith("data.steps")


JOINED = {"list": "xs", "text": "t", "score": "s", "join": "ys", "match": "m"}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"xs": [{"t": "a", "m": [1]}]}, "field 'xs': expected a text or a number as 'm' of each"),
        ({"ys": [{"m": {"x": 1}, "s": 2}]}, "field 'ys': expected a text or a number as 'm' of each"),
        ({"ys": [{"m": 1, "s": 2}, {"m": 1, "s": 9}]}, "field 'ys': two of them have one 'm'"),
    ],
)
def test_what_two_lists_are_joined_by_is_a_name_of_its_own(tmp_path, change, found):
    row = {"prompt": "q", "xs": [{"t": "a", "m": 1}, {"t": "b", "m": 2}], "ys": [{"m": 2, "s": 5}, {"m": 1, "s": 4}]}
    assert loaded(tmp_path, [row], [{"answers": JOINED}]).groups[0].scores == (4.0, 5.0)
    with pytest.raises(UserError, match=found):
        loaded(tmp_path, [{**row, **change}], [{"answers": JOINED}])


def test_join_needs_match(tmp_path):
    with pytest.raises(UserError, match="join and match go together"):
        loaded(tmp_path, [ROW], [{"answers": {k: v for k, v in JOINED.items() if k != "match"}}])
