"""A trial as a part of an ordinary experiment, and the file that holds the choice."""

from __future__ import annotations

import pytest

from evenhand.configfile.document import parse
from evenhand.plan.graph import Node
from evenhand.plan.plan import build
from evenhand.spec.read import read_experiment
from evenhand.stages.validation_split import ValidationSplitSpec
from evenhand.tuning.trials import Nodes, needed, of_trial, planned
from evenhand.tuning.write import commented, dumped

GIVEN = {
    "name": "t",
    "seeds": [0, 1],
    "data": {"world": "quickstart"},
    "model": {"pretrain": {"documents": 10, "train": {"steps": 1}}},
    "sft": {"train": {"steps": 1}},
    "reward_models": {"rm": {"train": {"steps": 1}}},
    "train": {"steps": 8, "learning_rate": 1e-4},
    "arms": {
        "sft": {"method": "start"},
        "dpo": {"method": "dpo"},
        "long": {"method": "dpo", "train": {"epochs": 2, "steps": None}},
        "rloo": {"method": "rloo", "reward": "rm"},
    },
    "tune": {"trials": 2, "prompts": 50, "steps": 0.5},
}


@pytest.fixture(scope="module")
def experiment():
    return read_experiment(GIVEN).value


def node(name, key, **inputs):
    spec = ValidationSplitSpec(prompts=1)
    return Node(name=name, spec=spec, inputs=inputs, seed=0, row="", column="", key=key, cost="")


def test_a_trial_shares_its_prefix_with_the_comparison(experiment):
    """Everything that does not depend on the seed or on the settings is the same stage."""
    trial, nodes = planned(experiment, "dpo", 1, {"learning_rate": 2e-4, "beta": 0.3}, {}, Nodes())
    comparison = {n.key for n in build(experiment).nodes}
    shared = {n.name for n in nodes if n.key in comparison}
    tokens = {f"tokens/{split}" for split in ("corpus", "demonstrations", "preferences")}
    assert shared == {"data", "data set apart", "base", "sft", "reference/sft/preferences"} | tokens
    fitted = next(n for n in nodes if n.name == trial.fits[100])
    assert fitted.spec.parameters["beta"] == 0.3
    assert fitted.spec.train.learning_rate == 2e-4


def test_a_trial_plans_only_what_it_needs(experiment):
    _, nodes = planned(experiment, "dpo", 1, {"learning_rate": 2e-4}, {}, Nodes())
    assert not [n.name for n in nodes if "/rm" in n.name], "an offline arm trains no reward model"
    _, online = planned(experiment, "rloo", 1, {"learning_rate": 2e-4}, {}, Nodes())
    assert [n.name for n in online if n.name.startswith("reward_models")] == ["reward_models/rm/seed-100"]


def test_nothing_learns_from_or_is_judged_by_another_split(experiment):
    _, nodes = planned(experiment, "rloo", 1, {"learning_rate": 2e-4}, {}, Nodes())
    for n in nodes:
        if n.name not in ("data", "data set apart", "tokens/corpus", "base") and "data" in n.inputs:
            assert n.inputs["data"] == "data set apart", n.name
    assert {n.spec.split for n in nodes if n.kind == "generate"} == {"validation_prompts"}


def test_the_board_has_a_row_per_arm_and_a_column_per_trial(experiment):
    nodes = Nodes()
    for number in (1, 2):
        planned(experiment, "dpo", number, {"learning_rate": number * 1e-4}, {}, nodes)
    places = {(n.row, n.column) for n in nodes.by_name.values() if n.kind in ("fit", "judge") and n.row.startswith("dpo")}
    assert places == {("dpo", "trial 1"), ("dpo", "trial 2")}
    assert {n.column for n in nodes.by_name.values() if not n.row.startswith("dpo")} == {"shared"}


def test_a_share_of_steps_or_of_epochs(experiment):
    arms = of_trial(experiment, "long", "x", {}, {}).all_arms()
    assert (arms["x"].train.epochs, arms["x"].train.steps) == (1.0, None)
    assert of_trial(experiment, "dpo", "x", {}, {}).all_arms()["x"].train.steps == 4


def test_two_plans_share_what_has_one_key_and_keep_apart_what_has_one_name():
    nodes = Nodes()
    nodes.add([node("data", "d" * 32), node("reference", "a" * 32, data="data")])
    new, called = nodes.add(
        [node("data", "d" * 32), node("reference", "b" * 32, data="data"), node("fit", "c" * 32, r="reference")]
    )
    assert [n.name for n in new] == ["reference-bbbbbbbb", "fit"]
    assert new[1].inputs == {"r": "reference-bbbbbbbb"}
    assert called == {"data": "data", "reference": "reference-bbbbbbbb", "fit": "fit"}


def test_what_is_needed():
    nodes = [node("a", "1" * 8), node("b", "2" * 8), node("c", "3" * 8, x="a"), node("d", "4" * 8, x="c")]
    assert [n.name for n in needed(nodes, ["d"])] == ["a", "c", "d"]


@pytest.mark.parametrize(
    "text", ["1e-4", "no", "010", "1:30", "null", "~", "a: b", "# x", "", "multi\nline", "ünï", "0x1f", "- a", "'"]
)
def test_text_reads_back_as_text(text):
    assert parse(f"a: {dumped(text)}", "x").data == {"a": text}
    assert parse(f"a: {dumped([text, 1e-5, None, True])}", "x").data == {"a": [text, 1e-5, None, True]}


def test_a_long_mapping_is_opened_up():
    value = {"first": {"key": "x" * 100, "other": [1, 2]}, "second": {}}
    text = commented({"top": value}, {("top", "second"): "why"})
    assert parse(text, "x").data == {"top": value}
    assert "  # why\n  second: {}" in text
