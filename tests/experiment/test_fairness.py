"""What the page says was held equal."""

from __future__ import annotations

from typing import Any

import pytest

from evenhand.errors import UserError
from evenhand.plan.plan import build
from evenhand.results.fairness import deviations, held_equal, made_apart, spent_apart
from evenhand.spec.read import read_experiment
from evenhand.stages.online import once
from evenhand.types import Group, Prompt

GIVEN = {
    "name": "t",
    "baseline": "sft",
    "data": {"world": "quickstart"},
    "model": {"pretrain": {"documents": 10, "train": {"steps": 1}}},
    "sft": {"train": {"steps": 1}},
    "train": {"steps": 2, "learning_rate": 1e-4},
    "arms": {"sft": {"method": "start"}, "dpo": {"method": "dpo"}},
}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("name=t", "Every arm and seed starts from the same `sft` weights (one draw of them, for which all intervals hold)"),
        ("sft.per_seed=true", "Every arm of a seed starts from that seed's `sft` weights"),
        ("initial_policy=base", "Every arm starts from the base model"),
    ],
)
def test_a_start_that_all_seeds_share_is_said_to_be_one_draw(override: str, said: str) -> None:
    assert held_equal(read_experiment(GIVEN, [override]).value)[0].startswith(said)


def test_the_prompts_that_really_answered_are_counted() -> None:
    e = read_experiment(GIVEN, ["evaluation.prompts=200"]).value
    assert "the same 7 held-out prompts (200 were asked for; the data hold no more)" in held_equal(e, 7)[2]
    assert "the same 200 held-out prompts, with" in held_equal(e, 200)[2]


def test_what_was_spent_is_compared_whatever_the_settings_say() -> None:
    """A method that trains on its data again every step: equal settings, 314 times the tokens."""
    spent = {"dpo": {"tokens_trained": 1000.0, "tokens_generated": 0.0}, "hybrid": {"tokens_trained": 314_000.0}}
    assert spent_apart(spent) == ["tokens trained on: 1,000 (dpo); 314,000 (hybrid): 314 times as many"]
    assert spent_apart({"a": {"flops": 1.00e9}, "b": {"flops": 1.04e9}}) == []
    assert spent_apart({"a": {"reward_calls": 0.0}, "b": {"reward_calls": 64.0}}) == ["reward calls: 0 (a); 64 (b)"]
    assert spent_apart({}) == []


def test_artifacts_made_elsewhere_are_not_compared_in_silence() -> None:
    here = {"torch": "2.13.0", "device": "cpu", "processor": "X"}
    assert made_apart({"sft": here, "dpo": here}) == []
    assert made_apart({"sft": here, "dpo": {**here, "device": "cuda", "processor": "Y"}}) == [
        "made with different device: cpu (sft); cuda (dpo)", "made with different processor: X (sft); Y (dpo)",
    ]  # fmt: skip
    mixed = {**here, "torch": "2.13.0 and 2.12.0"}
    assert made_apart({"sft": mixed, "dpo": mixed}) == ["made with different torch: 2.13.0 and 2.12.0 (sft, dpo)"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"a": {"method": "dpo", "sampling": {"temperature": 0.5}, "train": {"sample_every": 1}}, "b": {"method": "ipo"}}, []),
        ({"a": {"method": "dpo", "train": {"steps": None, "epochs": 1}}, "b": {"method": "ipo"}},
         ["train.steps: not set (a); 2 (b)", "train.epochs: 1.0 (a); not set (b)"]),
        ({"a": {"method": "sft", "data": "prompts"}, "b": {"method": "sft"}}, ["data: prompts (a); the method's own split (b)"]),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_not_listed(settings: dict[str, Any], said: list[str]) -> None:
    arms = {"sft": {"method": "start"}, **settings}
    found = deviations(read_experiment({**GIVEN, "arms": arms}).value)
    assert [d for d in found if not d.startswith("train.learning_rate")] == said


def test_prompts_of_an_arm_that_samples_are_of_the_split_that_it_names() -> None:
    own, pairs = ({"method": "rloo", "reward": "gold"} | more for more in ({}, {"data": "preferences"}))
    e = read_experiment({**GIVEN, "arms": {"sft": {"method": "start"}, "own": own, "pairs": pairs}}).value
    assert "prompts: the data's prompts (own); preferences (pairs)" in deviations(e)
    keys = {node.name: node.key for node in build(e).nodes}
    assert keys["arms/own/seed-0"] != keys["arms/pairs/seed-0"]


def test_a_split_that_no_data_has_is_refused() -> None:
    arms = {"sft": {"method": "start"}, "rloo": {"method": "rloo", "reward": "gold", "data": "preference"}}
    with pytest.raises(UserError, match=r"arms\.rloo\.data: the data has no split 'preference'"):
        read_experiment({**GIVEN, "arms": arms})


def test_pairs_of_one_prompt_ask_it_once() -> None:
    asked = [Group(prompt=Prompt(content=text), completions=()) for text in ("a", "b", "a")]
    assert [g.prompt.text for g in once(asked)] == ["a", "b"]
