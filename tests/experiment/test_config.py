"""Bad experiments get the one clear message; good ones a plan in which equal stages are one stage."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from evenhand import run_experiment
from evenhand.errors import UserError
from evenhand.plan import plan as planner
from evenhand.results.fairness import deviations
from evenhand.spec.read import read_experiment
from evenhand.spec.reward_resolution import models_in, resolved_reward

GOOD = {
    "name": "good",
    "seeds": [0, 1],
    "baseline": "sft",
    "data": {"world": "quickstart"},
    "model": {"pretrain": {"documents": 10, "train": {"steps": 1}}},
    "sft": {"train": {"steps": 1}},
    "reward_models": {"rm": {"train": {"steps": 1}}},
    "rewards": {"stopped": {"kind": "unfinished", "reward": "rm", "rule": "replace", "value": -1.0}},
    "train": {"steps": 2, "learning_rate": 1e-4},
    "arms": {"sft": {"method": "start"}, "dpo": {"method": "dpo"}, "rloo": {"method": "rloo", "reward": "stopped"}},
}


def changed(path: str, value):
    data = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    inside = data
    for key in parents:
        inside = inside.setdefault(key, {})
    inside[last] = value
    return data


BAD = [
    ("arms.dpo.beat", 0.1, "arms.dpo.beat: unknown key 'beat'", "did you mean 'beta'"),
    ("arms.dpo.beta", "large", "arms.dpo.beta", "number"),
    ("arms.dpo.method", "dpoo", "unknown method 'dpoo'", "did you mean 'dpo'"),
    ("arms.dpo.train", {"learing_rate": 1}, "arms.dpo.train.learing_rate: unknown key", "did you mean 'learning_rate'"),
    ("arms.dpo.initial_policy", "stf", "cannot start from 'stf'", "did you mean 'sft'"),
    ("arms.dpo.reward", "rm", "a reward has no effect", "remove it"),
    ("arms.rloo.reward", None, "needs a reward", "add `reward:`"),
    ("arms.rloo.reward", "rn", "unknown reward 'rn'", ""),
    ("arms.sft.beta", 1.0, "arms.sft.beta: unknown key 'beta'", "the method has no `beta`"),
    ("arms.dpo.train", {"epochs": 1}, "name either `steps` or `epochs`", "train.epochs=null"),
    ("sft.train", {}, "sft.train: name either `steps` or `epochs`", "{steps: 200}"),
    ("model.pretrain.train", {}, "model.pretrain.train: name either `steps` or `epochs`", "{steps: 200}"),
    ("baseline", "stf", "no arm is called 'stf'", "did you mean 'sft'"),
    ("seeds", [0, 0], "seeds must be different", ""),
    ("model", {}, "name either `path` or `pretrain`", ""),
    ("data", {}, "no data is named", "preferences"),
    ("judge", {"reward": "vadr"}, "unknown reward 'vadr'", "did you mean 'vader'"),
    ("rewards.stopped", {"kind": "unfinished", "reward": "rm", "rule": "drop"}, "unknown rule 'drop'", ""),
    ("evaluation", {"promts": 3}, "unknown key 'promts'", "did you mean 'prompts'"),
    ("lengths", {"prompt": "long"}, "lengths.prompt", "integer"),
]


def test_an_experiment_trains_something_from_something_that_is_there():
    with pytest.raises(UserError, match="at least one arm"):
        read_experiment(changed("arms", {}) | {"reward_models": {}})
    with pytest.raises(UserError, match="there is no `sft:` section"):
        read_experiment(changed("sft", None) | {"initial_policy": "sft"})


@pytest.mark.parametrize(("path", "value", "what", "fix"), BAD, ids=[b[0] + "=" + str(b[1])[:20] for b in BAD])
def test_bad_experiments_say_what_and_how(path, value, what, fix):
    with pytest.raises(UserError) as caught:
        read_experiment(changed(path, value))
    message = str(caught.value)
    assert what in message
    assert fix in message


def built(data=GOOD):
    return planner.build(read_experiment(data).value)


def test_shared_stages_are_one_node():
    plan = built()
    names = [n.name for n in plan.nodes]
    assert len(names) == len(set(names))
    assert names.count("sft") == names.count("base") == names.count("data") == 1
    assert sum(n.kind == "reference" for n in plan.nodes) == 1, "reference log-probs serve both seeds"
    assert {plan.arms["sft"][s] for s in (0, 1)} == {"sft"}


def test_nodes_come_after_their_inputs():
    seen = set()
    for node in built().nodes:
        assert set(node.inputs.values()) <= seen
        seen.add(node.name)


PER_ARM = (("arms", ""), ("generations", ""), ("verdicts", ""), ("scores", "/rm"))
"""What is made of an arm: a model, answers, what the judge and the reward model `rm` say of them."""


def test_keys_change_with_what_matters_and_with_nothing_else():
    def keys(data):
        return {n.name: n.key for n in built(data).nodes}

    base = keys(GOOD)
    assert keys(changed("description", "words")) == base
    other = keys(changed("arms.dpo.beta", 0.2))
    assert {n for n in base if base[n] != other[n]} == {f"{kind}/dpo/seed-{s}{of}" for kind, of in PER_ARM for s in (0, 1)}
    data_seed = keys(changed("data.seed", 1))
    assert all(data_seed[n] != base[n] for n in base)


def test_an_arm_may_start_from_another():
    data = changed("arms.after", {"method": "rloo", "reward": "rm", "initial_policy": "dpo"})
    plan = built(data)
    assert plan["arms/after/seed-1"].inputs["start"] == "arms/dpo/seed-1"


def test_rewards_resolve_at_any_depth():
    experiment = read_experiment(GOOD).value
    reward = resolved_reward({"kind": "weighted", "parts": [{"reward": "stopped", "weight": 1.0}]}, experiment)
    inner = reward["parts"][0]["reward"]
    assert inner["kind"] == "unfinished"
    assert inner["reward"] == {"kind": "model", "name": "rm"}
    assert models_in(reward) == {"rm"}
    assert resolved_reward("gold", experiment) == {"kind": "gold", "world": "quickstart"}


def test_deviations_are_named():
    assert deviations(read_experiment(GOOD).value) == []
    said = deviations(read_experiment(changed("arms.dpo.train", {"learning_rate": 1e-3})).value)
    assert said == ["train.learning_rate: 0.001 (dpo); 0.0001 (rloo)"]


@pytest.mark.parametrize(
    ("path", "value", "what", "fix"),
    [
        ("arms.best", {"method": "best_of_n"}, "best_of_n chooses by a reward", "add `reward:`"),
        ("arms.best", {"method": "best_of_n", "n": 1, "reward": "rm"}, "n is 1", "at least 2"),
        ("arms.best", {"method": "best_of_n", "m": 4, "reward": "rm"}, "unknown key 'm'", "known: 'n'"),
        ("arms.best", {"method": "best_of_n", "reward": "rn"}, "unknown reward 'rn'", ""),
        ("reward_models.rm", {"method": "kto", "train": {"steps": 1}}, "kto does not give a reward", "preference_model"),
        ("rewards.two", {"kind": "ensemble", "members": ["rm", "rn"]}, "unknown reward 'rn'", ""),
    ],
)
def test_signals_that_cannot_be(path, value, what, fix):
    data = changed(path, value)
    if path.startswith("rewards."):
        data["arms"]["rloo"]["reward"] = path.split(".")[1]
    with pytest.raises(UserError) as caught:
        read_experiment(data)
    assert what in str(caught.value)
    assert fix in str(caught.value)


def test_a_worlds_options_reach_its_gold_and_are_checked() -> None:
    experiment = read_experiment(changed("data", {"world": "countdown", "options": {"numbers": 2, "reasoning": True}})).value
    assert resolved_reward("gold", experiment) == {"kind": "gold", "world": "countdown", "numbers": 2, "reasoning": True}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"world": "countdown", "options": {"numberz": 2}}, "unknown option 'numberz'"),
        ({"world": "countdown", "options": {"numbers": 9}}, "a countdown puzzle of 9 numbers"),
        ({"prompts": "p.jsonl", "options": {"numbers": 2}}, "are a built-in world's"),
    ],
)
def test_a_worlds_options_are_its_own(data: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_experiment(changed("data", data))


def test_the_content_of_a_file_may_be_given_as_text_or_as_data():
    as_text, as_data = (run_experiment.prepare(content) for content in (json.dumps(GOOD, indent=1), GOOD))
    assert [node.key for node in as_text.plan.nodes] == [node.key for node in as_data.plan.nodes]
    assert as_text.out == as_data.out == Path("runs/good")
