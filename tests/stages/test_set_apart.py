"""Prompts for tuning leave everything that is trained on, and are none that judge."""

from __future__ import annotations

import pytest

from evenhand.data.jsonl import read_groups, write_groups
from evenhand.errors import UserError
from evenhand.stages.validation_split import ValidationSplitSpec
from evenhand.types import Completion, Group, Prompt
from tests.stages.performed import perform


def pair(text, id=""):
    return Group(
        prompt=Prompt(content=text, id=id), completions=(Completion(content="a"), Completion(content="b")), scores=(1.0, 0.0)
    )


def bare(text):
    return Group(prompt=Prompt(content=text), completions=())


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_groups(folder / "prompts.jsonl", [bare(f"p{i}") for i in range(40)])
    write_groups(folder / "preferences.jsonl", [pair(f"p{i}", id=f"row {i}") for i in range(40)] + [pair("other")])
    write_groups(folder / "demonstrations.jsonl", [pair("p3"), pair("elsewhere")])
    write_groups(folder / "heldout_prompts.jsonl", [bare(f"p{i}") for i in range(5)])
    write_groups(folder / "corpus.jsonl", [pair("p3")])
    (folder / "meta.json").write_text("{}")
    return folder


def run(data, out, count):
    perform("validation_split", ValidationSplitSpec(prompts=count), {"data": data}, out)
    return {p.stem: [g.prompt.content for g in read_groups(p)] for p in out.glob("*.jsonl")}


def test_what_is_set_apart_is_in_no_other_split_whatever_its_id(data, tmp_path):
    found = run(data, tmp_path / "out", 12)
    chosen = set(found["validation_prompts"])
    assert len(chosen) == 12
    for split in ("prompts", "preferences", "demonstrations", "heldout_prompts"):
        assert not chosen & set(found[split]), split
    assert sorted([*found["prompts"], *chosen]) == sorted(f"p{i}" for i in range(40)), "nothing is lost"
    assert found["preferences"][-1] == "other"
    assert found["heldout_prompts"] == [f"p{i}" for i in range(5)]
    assert found["corpus"] == ["p3"], "documents are no prompts"
    assert not (tmp_path / "out" / "meta.json").exists(), "the store writes its own"


def test_rows_that_stay_are_the_rows_they_were_in_their_order(data, tmp_path):
    run(data, tmp_path / "out", 12)
    before, after = (read_groups(folder / "preferences.jsonl") for folder in (data, tmp_path / "out"))
    assert len(after) == 41 - 12
    assert after == [g for g in before if g in after]


def test_the_choice_hangs_on_the_prompts_alone(data, tmp_path):
    first = run(data, tmp_path / "a", 12)["validation_prompts"]
    write_groups(data / "prompts.jsonl", [bare(f"p{i}") for i in reversed(range(40))])
    assert run(data, tmp_path / "b", 12)["validation_prompts"] == first
    assert (tmp_path / "a" / "apart.json").read_text() == (tmp_path / "b" / "apart.json").read_text()
    run(data, tmp_path / "c", 11)
    assert (tmp_path / "c" / "apart.json").read_text() != (tmp_path / "b" / "apart.json").read_text()


def test_half_must_be_left_to_learn_from(data, tmp_path):
    with pytest.raises(UserError, match="18 of 35 prompts") as caught:  # 40, of which 5 are held out
        run(data, tmp_path / "out", 18)
    assert "at most 17" in caught.value.fix


def test_without_prompts_pairs_lend_theirs(data, tmp_path):
    (data / "prompts.jsonl").unlink()
    found = run(data, tmp_path / "out", 12)
    assert len(found["validation_prompts"]) == 12
    assert not set(found["validation_prompts"]) & set(found["preferences"])
