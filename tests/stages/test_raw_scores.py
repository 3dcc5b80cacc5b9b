"""A reward model is measured on its own scores, whatever scale policies are rewarded on, and with room for what a probe adds."""

from __future__ import annotations

from typing import Any, cast

import pytest

from evenhand.protocols import TrainedReward
from evenhand.rewards.attributes import AttributeReward
from evenhand.rewards.general_preference import GeneralPreferenceJudge, GeneralPreferenceReward
from evenhand.rewards.implicit import PolicyReward
from evenhand.rewards.model import ModelReward, Normalisation
from evenhand.rewards.process import ProcessReward
from evenhand.rewards.tournament import Tournament

UNUSED = cast(Any, None)
SCALED = ModelReward(UNUSED, UNUSED, None, 10, 1, Normalisation(shift=2.0, scale=3.0))
ITSELF = Normalisation(shift=0.0, scale=1.0)


def test_the_scale_that_policies_are_rewarded_on_is_taken_off() -> None:
    assert SCALED.unscaled().normalisation == ITSELF
    assert AttributeReward(SCALED, {"a": 1.0}).unscaled() == AttributeReward(SCALED.unscaled(), {"a": 1.0})
    assert ProcessReward(SCALED).unscaled() == SCALED.unscaled(), "whole answers: the logit of the last step"


def test_what_has_a_scale_of_its_own_stays_as_it_is() -> None:
    policy = PolicyReward(policy=UNUSED, renderer=UNUSED, beta=0.1, max_completion=8)
    pairs = Tournament(UNUSED)
    assert policy.unscaled() is policy
    assert (pairs.unscaled(), pairs.roomy()) == (pairs, pairs)


def limits(reward: Any) -> int | None:
    """Of the model inside."""
    for name in ("model", "judge", "reward"):
        if hasattr(reward, name):
            return limits(getattr(reward, name))
    return reward.max_completion


@pytest.mark.parametrize(
    "reward",
    [
        SCALED, AttributeReward(SCALED), ProcessReward(SCALED), GeneralPreferenceReward(GeneralPreferenceJudge(SCALED)),
        PolicyReward(policy=UNUSED, renderer=UNUSED, beta=0.1, max_completion=10),
    ],
    ids=lambda reward: type(reward).__name__,
)  # fmt: skip
def test_every_kind_makes_room_for_a_probe_s_words_on_both_views(reward: TrainedReward) -> None:
    assert limits(reward.roomy()) == 20
    unscaled = reward.unscaled()
    assert limits(unscaled) == 10
    assert limits(unscaled.roomy()) == 20
