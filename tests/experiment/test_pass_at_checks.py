"""pass@k counts answers that are right: a judge that says more is refused when the file is read."""

from __future__ import annotations

from typing import Any

import pytest

from evenhand.errors import UserError
from evenhand.spec.read import read_experiment


def given(reward: Any, world: str = "quickstart") -> dict[str, Any]:
    once = {"train": {"steps": 1}}
    return {
        "name": "passed", "data": {"world": world}, "model": {"pretrain": once}, "sft": once, "reward_models": {"rm": once},
        "rewards": {"mine": {"kind": "tagged", "reward": "vader"}}, **once,
        "arms": {"start": {"method": "start"}, "dpo": {"method": "dpo"}},
        "judge": {"reward": reward, "self_test": 0}, "evaluation": {"pass_at": [1, 2]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ("gold", "quickstart's gold"), ("rm", "model"), ("mine", "vader"), ("rouge_l", "rouge_l"),
        ({"kind": "length", "unit": "words"}, "length"),
    ],
)  # fmt: skip
def test_a_reward_that_says_more_than_right_or_wrong_is_refused(reward: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"the reward {said} says more"):
        read_experiment(given(reward))


@pytest.mark.parametrize(
    ("reward", "world"),
    [("gold", "arithmetic"), ("number", "quickstart"), ({"kind": "format", "pattern": "a+"}, "quickstart")],
)
def test_those_of_right_and_wrong_are_taken(reward: Any, world: str) -> None:
    assert read_experiment(given(reward, world)).value.evaluation.pass_at == (1, 2)
