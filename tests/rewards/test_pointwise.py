"""Lifting functions of one answer, the user's own among them."""

import math

import numpy as np
import pytest
import torch

from evenhand.errors import UserError
from evenhand.rewards import get
from evenhand.rewards.fields import fields_read
from evenhand.rewards.function import GroupFunction, load_function
from evenhand.rewards.pointwise import pointwise
from evenhand.types import Completion, Group, Prompt

GROUP = Group(prompt=Prompt(content="p", meta={"k": 2}), completions=(Completion(content="ab"), Completion(content="c")))


def test_numbers_bools_none_and_parts():
    assert pointwise(lambda p, c: p.meta["k"] * len(c.text))([GROUP])[0].values == (4.0, 2.0)
    assert pointwise(lambda p, c: c.text == "c")([GROUP])[0].values == (0.0, 1.0)
    assert math.isnan(pointwise(lambda p, c: None)([GROUP])[0].values[0])
    found = pointwise(lambda p, c: {"reward": len(c.text), "x": 1})([GROUP])[0]
    assert (found.values, found.parts) == ((2.0, 1.0), {"x": (1.0, 1.0)})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("good", "str"),
        ({"x": 1.0}, "'reward'"),
        ([1.0], "list"),
        ({"reward": "1"}, "str"),
        (10**400, "must be finite"),
        ({"reward": 1.0, "x": float("inf")}, "must be finite"),
        (np.zeros(2), "ndarray"),
        ((x for x in [1.0]), "generator"),
    ],
)
def test_what_is_not_a_number_is_refused_with_the_functions_name(answer, message):
    def mine(prompt, completion):
        return answer

    with pytest.raises(UserError, match=message) as caught:
        pointwise(mine)([GROUP])
    assert "mine" in str(caught.value)


def test_parts_must_not_change_between_answers():
    with pytest.raises(UserError, match="different parts"):
        pointwise(lambda p, c: {"reward": 1.0, c.text: 1.0})([GROUP])


def test_groups_without_completions_and_no_groups():
    empty = Group(prompt=Prompt(content="p"), completions=())
    assert pointwise(lambda p, c: 1.0)([empty])[0].values == ()
    assert pointwise(lambda p, c: 1.0)([]) == []


def test_a_function_from_a_file(tmp_path):
    (tmp_path / "my.py").write_text("def score(prompt, completion):\n    return len(completion.text)\n")
    assert pointwise(load_function("my.py:score", base=tmp_path))([GROUP])[0].values == (2.0, 1.0)


def test_two_files_of_one_name_stay_apart(tmp_path):
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my.py").write_text(f"def score(prompt, completion):\n    return {value}\n")
    loaded = [load_function("my.py:score", base=tmp_path / folder) for folder in ("a", "b")]
    assert [f(None, None) for f in loaded] == [1, 2]


def test_a_function_from_a_package():
    assert load_function("evenhand.worlds.labels:words")("A b") == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my.py", "names no function"),
        ("none.py:score", "no file"),
        ("my.py:scoer", "did you mean 'score'"),
        ("my.py:number", "not a function but int"),
        ("broken.py:score", "ZeroDivisionError"),
        ("ends.py:score", "does not run: SystemExit: 2"),
        ("syntax.py:score", r"syntax.py:1: this is no Python"),
        ("no_such_package:score", r"no module 'no_such_package'.*\n.*looked for among what is installed and in "),
    ],
)
def test_faults_are_said_clearly(tmp_path, path, message):
    (tmp_path / "my.py").write_text("number = 1\ndef score(prompt, completion):\n    return 1\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(2)\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    with pytest.raises(UserError, match=message):
        load_function(path, base=tmp_path)


def test_a_function_of_groups():
    assert GroupFunction(lambda g: [len(g.completions), 0], name="f")([GROUP])[0].values == (2.0, 0.0)
    with pytest.raises(UserError, match="1 numbers for 2"):
        GroupFunction(lambda g: [0.0], name="f")([GROUP])
    assert GroupFunction(lambda g: np.array([1.0, 2.0]), name="f")([GROUP])[0].values == (1.0, 2.0)
    assert GroupFunction(lambda g: torch.tensor([1.0, 2.0]), name="f")([GROUP])[0].values == (1.0, 2.0)
    first, second = GroupFunction(lambda g: (n for n in (3, None)), name="f")([GROUP])[0].values
    assert first == 3.0
    assert math.isnan(second)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("12", "a number for each answer, found str"),
        (["1", "2"], "must be a number, this one is str"),
        ({0: 1.0, 1: 2.0}, "a number for each answer, found dict"),
        ({1.0, 2.0}, "a number for each answer, found set"),
        (None, "a number for each answer, found NoneType"),
        (1.0, "a number for each answer, found float"),
        ([1.0, math.inf], "must be finite"),
        ([10**400, 1], "must be finite"),
    ],
)
def test_what_a_function_of_groups_may_not_return(answer, message):
    with pytest.raises(UserError, match=message) as caught:
        GroupFunction(lambda g: answer, name="mine")([GROUP])
    assert caught.value.where.startswith("mine, prompt ")


@pytest.mark.parametrize("scalar", [np.float32(1.0), np.int64(1), np.bool_(True), np.array(1.0), torch.tensor(1.0)])
def test_one_number_of_a_library_is_a_number(scalar):
    assert pointwise(lambda p, c: scalar)([GROUP])[0].values == (1.0, 1.0)


@pytest.mark.parametrize("sees", ["completion", "group"])
@pytest.mark.parametrize(
    ("line", "said", "why"),
    [
        ("raise KeyError('k')", "the function raised KeyError: 'k'", "at my.py:3"),
        ("sys.exit()", "the function raised SystemExit", "at my.py:3"),
        ("next(iter([]))", "the function raised StopIteration", "at my.py:3"),
    ],
)
def test_what_a_function_raises_is_said_with_its_name_and_line(tmp_path, sees, line, said, why):
    (tmp_path / "my.py").write_text(f"import sys\ndef f(*given):\n    {line}\n")
    with pytest.raises(UserError, match=said) as caught:
        get({"kind": "function", "path": "my.py:f", "sees": sees}, base=tmp_path)([GROUP])
    assert (caught.value.where, caught.value.why) == (f"reward my.py:f, prompt {GROUP.prompt.id}", why)


@pytest.mark.parametrize("sees", ["completion", "group"])
def test_a_function_changes_no_data(tmp_path, sees):
    """Every answer is to the same row, and so is every later one."""
    body = "def f(given, *rest):\n    meta = getattr(given, 'prompt', given).meta\n    meta['k'] += 1\n    meta['l'].append(0)\n"
    (tmp_path / "my.py").write_text(f"{body}    return {'[meta[chr(107)]] * 2' if sees == 'group' else 'meta[chr(107)]'}\n")
    group = Group(prompt=Prompt(content="p", meta={"k": 2, "l": []}), completions=GROUP.completions)
    reward = get({"kind": "function", "path": "my.py:f", "sees": sees}, base=tmp_path)
    assert [s.values for s in reward([group, group])] == [(3.0, 3.0)] * 2
    assert group.prompt.meta == {"k": 2, "l": []}


def test_what_a_function_reads_is_still_known(tmp_path):
    (tmp_path / "my.py").write_text("def f(prompt, completion):\n    return prompt.meta['k']\n")
    reward = get({"kind": "function", "path": "my.py:f"}, base=tmp_path)
    group = Group(prompt=Prompt(content="p", meta={"k": 2, "other": 1}), completions=GROUP.completions)
    assert fields_read(reward, [group]) == {"k"}
