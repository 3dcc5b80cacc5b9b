"""A trained reward model as a reward, by the words that its training left: see `Method.implied_reward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evenhand.protocols import TrainedReward
from evenhand.rewards.attributes import AttributeReward
from evenhand.rewards.general_preference import GeneralPreferenceJudge, GeneralPreferenceReward
from evenhand.rewards.model import ModelReward
from evenhand.rewards.process import ProcessReward

SERVED: Mapping[str, Callable[..., TrainedReward]] = {
    "score": lambda model: model,
    "process": lambda model, aggregate, separator: ProcessReward(model, aggregate=aggregate, separator=separator),
    "attributes": lambda model, weights: AttributeReward(model, weights),
    "gated": lambda model: AttributeReward(model),
    "general_preference": lambda model, tau: GeneralPreferenceReward(GeneralPreferenceJudge(model, tau)),
}
"""By `kind`; what else stands there is passed on."""
SEVERAL = ("attributes", "gated", "general_preference")
"""Kinds of models that have several outputs."""
COMPARES = ("preference", "general_preference")
"""Kinds that score an answer against others to its prompt: of one alone they say nothing."""
HAS_A_SCALE = ("score", "attributes", "gated")
"""Kinds whose numbers mean nothing by themselves, so that they are stored with a shift and a scale."""


def served(how: Mapping[str, Any], model: ModelReward) -> TrainedReward:
    """The model as `how` says: `{"kind": K, ...}`."""
    own = {name: value for name, value in how.items() if name != "kind"}
    return SERVED[how["kind"]](model, **own)
