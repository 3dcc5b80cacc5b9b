"""A reward model is measured on its own scores, whatever scale policies are rewarded on."""

from __future__ import annotations

from typing import Any, cast

from evenhand.rewards.model import ModelReward, Normalisation
from evenhand.rewards.pointwise import pointwise
from evenhand.stages.evaluate_reward_model import raw


def test_the_scale_that_policies_are_rewarded_on_is_taken_off() -> None:
    unused = cast(Any, None)
    scaled = ModelReward(unused, unused, None, None, 1, Normalisation(shift=2.0, scale=3.0))
    assert raw(scaled).normalisation == Normalisation(shift=0.0, scale=1.0)


def test_a_reward_without_a_scale_stays_as_it_is() -> None:
    program = pointwise(lambda prompt, completion: 1.0, name="one")
    assert raw(program) is program
