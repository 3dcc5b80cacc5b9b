"""Keys under their former names: still read, with today's name said; beside today's, refused."""

from __future__ import annotations

import logging

import pytest

from evenhand.errors import UserError
from evenhand.spec import aliases
from evenhand.spec.keys import find
from evenhand.spec.read import read_experiment

BEFORE = """\
name: n
model: {path: m}
data: {world: quickstart}
start: base
train: {steps: 2, keep: best, validate_every: 1}
reward_models: {rm: {start: base, train: {steps: 1, keep: last}}}
arms:
  start: {method: start}
  dpo: {method: dpo, reward: rm}
  more: {method: rloo, reward: rm, start: dpo, train: {keep: best}}
"""


def test_they_are_read_as_todays_and_said(caplog):
    with caplog.at_level(logging.WARNING):
        loaded = read_experiment(BEFORE)
    arms = loaded.value.all_arms()
    assert loaded.value.initial_policy == "base"
    assert arms.keys() == {"start", "dpo", "more"}, "an arm may be called so"
    assert (arms["dpo"].initial_policy, arms["more"].initial_policy) == ("base", "dpo")
    assert [arms[n].train.keep_checkpoint for n in ("dpo", "more")] == ["best", "best"]
    assert list(loaded.given) == ["name", "model", "data", "initial_policy", "train", "reward_models", "arms"], "in their places"
    said = [record.message for record in caplog.records]
    assert len(said) == 6
    assert said[0].endswith("start is now called 'initial_policy'; the old name goes with the next release")
    assert any("arms.more.train.keep is now called 'arms.more.train.keep_checkpoint'" in line for line in said)


def test_from_the_command_line_too():
    assert read_experiment(BEFORE.replace("start: base\ntrain", "train"), ["start=base"]).value.initial_policy == "base"


def test_in_the_stages_that_arms_start_from():
    said = BEFORE.replace("model: {path: m}", "model: {pretrain: {train: {epochs: 1, keep: last}}}").replace(
        "start: base\ntrain", "train"
    )
    loaded = read_experiment(said, ["sft.train.steps=2", "sft.train.keep=last"])
    assert loaded.given["sft"] == {"train": {"steps": 2, "keep_checkpoint": "last"}}
    assert loaded.given["model"] == {"pretrain": {"train": {"epochs": 1, "keep_checkpoint": "last"}}}


def test_a_fault_in_its_value_is_said_where_it_stands(tmp_path):
    (path := tmp_path / "e.yaml").write_text(BEFORE.replace("start: dpo", "start: nobody"))
    with pytest.raises(UserError) as caught:
        read_experiment(path)
    assert f"{path}:10" in str(caught.value)


def test_both_names_in_one_file_are_refused(tmp_path):
    (path := tmp_path / "e.yaml").write_text(BEFORE + "initial_policy: base\n")
    with pytest.raises(UserError) as caught:
        read_experiment(path)
    assert "`start` and `initial_policy` are one key" in str(caught.value)
    assert f"{path}:4: start" in str(caught.value)
    assert f"{path}:11: initial_policy" in str(caught.value)


TODAY = BEFORE.replace("start: base\ntrain", "initial_policy: base\ntrain").replace("keep:", "keep_checkpoint:")


@pytest.mark.parametrize("parent", [BEFORE, TODAY], ids=["former", "today"])
@pytest.mark.parametrize(
    "child", ["{start: start, train: {keep: last}}", "{initial_policy: start, train: {keep_checkpoint: last}}"],
    ids=["former", "today"],
)  # fmt: skip
def test_a_child_wins_over_its_parent_under_either_name(tmp_path, parent, child):
    (tmp_path / "parent.yaml").write_text(parent)
    (path := tmp_path / "child.yaml").write_text(f"extends: parent.yaml\narms: {{more: {child}}}\n")
    more = read_experiment(path).value.all_arms()["more"]
    assert (more.initial_policy, more.train.keep_checkpoint) == ("start", "last")


@pytest.mark.parametrize("text", [BEFORE, TODAY], ids=["former", "today"])
@pytest.mark.parametrize("name", ["arms.more.start", "arms.more.initial_policy"])
def test_the_command_line_wins_over_the_file_under_either_name(text, name):
    assert read_experiment(text, [f"{name}=base"]).value.all_arms()["more"].initial_policy == "base"


def test_a_whole_arm_on_the_command_line_may_hold_them():
    given = read_experiment(TODAY, ["arms.more={method: rloo, reward: rm, start: base}"]).value
    assert given.all_arms()["more"].initial_policy == "base"


@pytest.mark.parametrize(("pattern", "today"), aliases.FORMER.items(), ids=lambda value: str(value))
def test_todays_name_is_a_key_at_that_place(pattern, today):
    at = {"reward_models": "arms"}.get(pattern[0], pattern[0])  # a reward model takes the keys of an arm
    assert find(".".join("x" if part == "*" else part for part in (*(at, *pattern[1:-1])[: len(pattern) - 1], today)))
