import gzip
import json
import math

import pytest

from evenhand.data.jsonl import read_groups, write_groups
from evenhand.errors import UserError
from evenhand.types import Completion, Finish, Group, Message, Prompt

TURNS = (Message("system", "be kind"), Message("user", "hé\u2028llo \ud800\n"))
FULL = Group(
    prompt=Prompt(content=TURNS, id="given", meta={"answer": 3, "tags": ["a", None], "nested": {"x": 0.1}}),
    completions=(
        Completion(content="a\rb", tokens=(1, 2), behaviour_logp=(-0.1, float("-inf")), finish=Finish.STOP),
        Completion(content=(Message("assistant", "b"),), finish=Finish.LENGTH),
    ),
    scores=(0.1 + 0.2, math.nan),
    parts={"rm": (1e-300, math.inf), "length": (math.nan, -0.0)},
)
BARE = Group(prompt=Prompt(content=""), completions=())


def plain(group: Group) -> str:
    """Everything in a group as text; NaN then equals NaN."""
    return repr(group)


@pytest.mark.parametrize("name", ["g.jsonl", "g.jsonl.gz"])
def test_round_trip_keeps_everything(tmp_path, name):
    assert write_groups(tmp_path / name, [FULL, BARE]) == 2
    assert [plain(g) for g in read_groups(tmp_path / name)] == [plain(FULL), plain(BARE)]


@pytest.mark.parametrize("name", ["g.jsonl", "g.jsonl.gz"])
def test_equal_groups_give_equal_bytes_and_nothing_else_is_left(tmp_path, name):
    first, second = tmp_path / name, tmp_path / "other" / name
    write_groups(first, [FULL, BARE])
    write_groups(second, [FULL, BARE])
    assert first.read_bytes() == second.read_bytes()
    assert name == "g.jsonl" or first.read_bytes()[4:8] == bytes(4), "no time stamp in the gzip header"
    assert [p.name for p in second.parent.iterdir()] == [name]


def test_writing_again_replaces_the_file(tmp_path):
    write_groups(tmp_path / "g.jsonl", [FULL])
    write_groups(tmp_path / "g.jsonl", [BARE])
    assert [plain(g) for g in read_groups(tmp_path / "g.jsonl")] == [plain(BARE)]


def test_nan_is_null_and_the_file_is_strict_json(tmp_path):
    write_groups(tmp_path / "g.jsonl", [FULL])

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    row = json.loads((tmp_path / "g.jsonl").read_bytes(), parse_constant=refuse)
    assert row["scores"] == [0.30000000000000004, None]
    assert row["parts"]["rm"] == [1e-300, "inf"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "g.jsonl"
    write_groups(path, [BARE])
    before = path.read_bytes()

    def broken():
        yield FULL
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_groups(path, broken())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["g.jsonl"]


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "g.jsonl.gz"
    write_groups(path, [BARE])
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b'{"prompt": "x"}\n'))
    with pytest.raises(UserError, match=r"g\.jsonl\.gz:2: not a canonical group"):
        read_groups(path)


def test_a_value_that_json_cannot_hold_is_an_error(tmp_path):
    bad = Group(prompt=Prompt(content="x", meta={"v": math.nan}), completions=())
    with pytest.raises(UserError, match="cannot be written as JSON"):
        write_groups(tmp_path / "g.jsonl", [bad])
