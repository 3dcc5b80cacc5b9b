"""Where settings are looked for, and what is refused before anything runs."""

from __future__ import annotations

import inspect

import pytest

from evenhand.configfile.schema import from_json, load, to_json
from evenhand.errors import UserError
from evenhand.methods import METHODS
from evenhand.plan.plan import build
from evenhand.spec import search_spaces, value_ranges
from evenhand.spec.experiment import Experiment
from evenhand.spec.read import read_experiment
from evenhand.spec.tuning import SearchRange
from evenhand.train.config import Train

GIVEN = {
    "name": "t",
    "seeds": [0, 1],
    "data": {"world": "quickstart"},
    "model": {"pretrain": {"documents": 10, "train": {"steps": 1}}},
    "sft": {"train": {"steps": 1}},
    "train": {"steps": 2, "learning_rate": 1e-4},
    "arms": {"sft": {"method": "start"}, "dpo": {"method": "dpo"}, "grpo": {"method": "grpo", "reward": "gold"}},
    "tune": {},
}


def told(*overrides):
    with pytest.raises(UserError) as caught:
        read_experiment(GIVEN, overrides)
    return str(caught.value)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_a_default_space_of_its_own_settings(method):
    space = search_spaces.default_space(method, 1e-4)
    assert space.pop("learning_rate") == SearchRange(log=(1e-5, 1e-3))
    assert set(space) <= set(inspect.signature(METHODS[method]).parameters)
    for name, dimension in space.items():
        for value in dimension if isinstance(dimension, tuple) else dimension.ends:
            assert name not in value_ranges.PARAMETERS or value_ranges.PARAMETERS[name].holds(value)


def test_what_a_method_declares_are_settings_of_its_own():
    for name, space in search_spaces.strengths().items():
        assert space.keys() <= inspect.signature(METHODS[name]).parameters.keys(), name


def test_training_settings_that_may_be_tuned_are_training_settings():
    assert set(search_spaces.TRAIN) <= set(inspect.signature(Train).parameters)


def test_a_space_for_all_and_more_or_less_for_one():
    given = [
        "tune.space={learning_rate: {log: [1e-5, 1e-3]}}",
        "tune.arms={dpo: {beta: [0.1, 0.3]}, grpo: {learning_rate: null}}",
    ]
    e = read_experiment(GIVEN, given).value
    found = {name: search_spaces.space_of(arm, e) for name, arm in e.all_arms().items()}
    assert found == {"sft": {}, "dpo": {"learning_rate": SearchRange(log=(1e-5, 1e-3)), "beta": (0.1, 0.3)}, "grpo": {}}
    assert search_spaces.left_out(e) == {"sft": "it is not trained", "grpo": "its space is empty"}


def test_the_sections_survive_json():
    e = load(
        Experiment, GIVEN, ["tune.arms={dpo: {beta: [0.1, 0.3, 1], train.warmup: {linear: [0.0, 0.1]}}}", "tune.trials=3"]
    ).value
    assert from_json(Experiment, to_json(e)) == e


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("tune.seeds=[1]", "tune.seeds: seed 1 is one of the comparison's"),
        ("tune.seeds=[5, 5]", "tune.seeds: seeds must be different"),
        ("tune.trials=1", "tune.trials: 1 trials"),
        ("tune.prompts=0", "tune.prompts: 0 prompts"),
        ("tune.steps=1.5", "tune.steps: 1.5 is out of range"),
        ("tune.arms={dop: {beta: [0.1]}}", "tune.arms.dop: no arm is called 'dop'"),
        ("tune.arms={sft: {learning_rate: [0.1]}}", "tune.arms.sft: it is not trained"),
        ("tune.arms={dpo: {bta: [0.1]}}", "tune.arms.dpo.bta: dpo has no 'bta' to tune"),
        ("tune.arms={dpo: {train.steps: [1, 2]}}", "dpo has no 'train.steps' to tune"),
        ("tune.space={beta: [0.1, 0.2]}", "tune.space.beta: grpo has no 'beta' to tune"),
        ("tune.space={learning_rate: {log: [1e-3, 1e-5]}}", "tune.space.learning_rate: 0.001 to 1e-05 is no range"),
        ("tune.space={learning_rate: {log: [0, 1e-5]}}", "0 to 1e-05 is no range"),
        ("tune.space={learning_rate: {}}", "name either `log` or `linear`"),
        ("tune.arms={dpo: {beta: [-0.1, 0.1]}}", "tune.arms.dpo.beta: -0.1 is out of range"),
        ("tune.arms={dpo: {beta: []}}", "tune.arms.dpo.beta: no value to choose from"),
        (
            "tune.arms={dpo: {learning_rate: [1e-4, 1e-5], beta: [0.1, 0.2]}}",
            "the space of dpo has 4 settings, fewer than 8 trials",
        ),
        ("tune.objective={reward: nothing}", "tune.objective.reward.kind: unknown reward 'nothing'"),
        ("tune.sampler=tpa", "tune.sampler"),
        ("arms.dpo.per_seed=false", "arms.dpo.per_seed: an arm that is trained once for all seeds cannot be tuned"),
    ],
)
def test_faults_are_told_where_they_were_set(override, said):
    assert said in told(override)


def test_a_fault_in_the_space_of_all_is_told_once():
    assert told("tune.space={learning_rate: {log: [1e-3, 1e-5]}}").count("is no range") == 1


def test_grids_are_equally_large():
    rates = "tune.space={learning_rate: {log: [1e-5, 1e-3], points: 4}}"
    assert read_experiment(GIVEN, ["tune.sampler=grid", rates, "tune.trials=4"]).value
    assert "the grid of dpo has 8 points, but there are 4 trials" in told(
        "tune.sampler=grid", rates, "tune.trials=4", "tune.arms={dpo: {beta: [0.1, 0.2]}}"
    )
    assert "a range in a grid needs `points`" in told(
        "tune.sampler=grid", "tune.space={learning_rate: {log: [1e-5, 1e-3]}}", "tune.arms={dpo: {beta: [0.1, 0.2]}}"
    )


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({"kl": 0.1}, "upper"),
        ({"kl": 0.0}, None),  # a KL weight cannot be less
        ({"kl": 0.01}, None),
        ({"learning_rate": 1.2e-5}, "lower"),
        ({"learning_rate": 1.7e-5}, None),
        ({"learning_rate": 9e-4}, "upper"),
        ({"train.schedule": "linear"}, None),
        ({"gamma": 1.0}, None),  # a share cannot be more
        ({"gamma": 0.9}, "lower"),
    ],
)
def test_edges(settings, end):
    space = {
        "kl": (0.0, 0.01, 0.1), "learning_rate": SearchRange(log=(1e-5, 1e-3)), "train.schedule": ("cosine", "linear"),
        "gamma": SearchRange(linear=(0.9, 1.0)),
    }  # fmt: skip
    found = search_spaces.edges(settings, space)
    assert [f" the {end} end " in text for text in found] == ([True] if end else [])


def test_without_the_section_a_plan_is_what_it_was():
    given = {k: v for k, v in GIVEN.items() if k != "tune"}
    nodes = build(read_experiment(given).value).nodes
    assert "data set apart" not in [n.name for n in nodes]
    assert {n.spec.split for n in nodes if n.kind == "generate"} == {"heldout_prompts"}
    tuned = build(read_experiment(GIVEN).value).nodes
    assert {n.key for n in nodes} & {n.key for n in tuned} == {
        n.key for n in tuned if n.name in ("data", "tokens/corpus", "base")
    }
