"""Rubrics: criteria met or not, their weights, faults, and what cannot be judged."""

from __future__ import annotations

import math

import pytest

from evenhand import rewards
from evenhand.errors import UserError
from evenhand.rewards.rubric import Criterion, Rubric
from evenhand.types import Completion, Group, Prompt, Scores


def group(*texts: str) -> Group:
    return Group(prompt=Prompt(content="?"), completions=tuple(Completion(content=t) for t in texts))


def fixed(*values: float):
    return lambda groups: [Scores(values) for _ in groups]


def test_a_rubric_by_hand():
    """Weights 3 and 1 to be earned, -2 for a fault: (3 + 1) / 4, (3 - 2) / 4, -2 / 4."""
    rubric = Rubric({
        "right": Criterion(reward=fixed(1.0, 1.0, 0.0), weight=3.0), "short": Criterion(reward=fixed(0.6, 0.4, 0.1), least=0.5),
        "rude": Criterion(reward=fixed(0.0, 2.0, 1.0), weight=-2.0),
    })  # fmt: skip
    found = rubric([group("a", "b", "c")])[0]
    assert found.values == (1.0, 0.25, -0.5)
    assert found.parts["right"] == (1.0, 1.0, 0.0)
    assert found.parts["short"] == (1.0, 0.0, 0.0)
    assert found.parts["short/reward"] == (0.6, 0.4, 0.1)


def test_an_answer_that_one_criterion_cannot_judge_is_not_judged():
    rubric = Rubric({"a": Criterion(reward=fixed(math.nan, 1.0)), "b": Criterion(reward=fixed(1.0, 0.0))})
    found = rubric([group("x", "y")])[0]
    assert math.isnan(found.values[0])
    assert math.isnan(found.parts["a"][0])
    assert found.values[1] == 0.5


def test_a_rubric_of_an_experiment_file():
    spec = {"kind": "rubric", "criteria": [
        {"reward": {"kind": "format", "pattern": "[a-z ]+"}, "weight": 2},
        {"reward": {"kind": "length", "unit": "words"}, "weight": -1, "least": 3, "name": "long"},
    ]}  # fmt: skip
    found = rewards.get(spec)([group("one two", "one two three", "No")])[0]
    assert found.values == pytest.approx((1.0, 0.5, 0.0))
    assert set(found.parts) == {"format", "format/reward", "long", "long/reward"}


@pytest.mark.parametrize(
    ("criteria", "words"),
    [
        ([], "positive weight"), ([{"reward": "vader", "weight": -1}], "positive weight"),
        ([{"reward": "vader"}, {"reward": "vader"}], "two criteria are called 'vader'"),
        ([{"reward": "vader", "wight": 1}], "wight"),
    ],
)  # fmt: skip
def test_rubrics_that_mean_nothing_are_refused(criteria, words):
    with pytest.raises(UserError, match=words):
        rewards.get({"kind": "rubric", "criteria": criteria})
