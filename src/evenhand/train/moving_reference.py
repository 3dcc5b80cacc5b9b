"""A reference that follows the policy: TR-DPO's soft and hard updates, for any method that is held to the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from evenhand.protocols import Source, Step
from evenhand.train.config import ReferenceUpdate
from evenhand.train.weights import mix_weights
from evenhand.types import TokenGroup

NAME = "reference"
"""What checkpoints call its weights."""


@dataclass(kw_only=True)
class FollowingReference:
    """A source whose reference moves before step index k, 2k, ...: `ref <- mix * policy + (1 - mix) * ref`, k = `update.every`.

    `source` must read its reference log-probs from the network `reference` when it is asked for a step, so that a step after an
    update has those of the new reference; see `RolloutSource.compare_again` for a rollout that serves several steps. The network
    is among `carried`: a resumed run goes on with the same one.
    """

    source: Source
    policy: nn.Module
    reference: nn.Module
    update: ReferenceUpdate

    @property
    def groups(self) -> Sequence[TokenGroup]:
        return self.source.groups

    @property
    def carried(self) -> Mapping[str, nn.Module]:
        return {**self.source.carried, NAME: self.reference}

    def step(self, index: int) -> Step:
        if self.update.due(index):
            mix_weights(self.policy, self.reference, self.update.mix)
        return self.source.step(index)

    def state_dict(self) -> dict[str, Any]:
        return self.source.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.source.load_state_dict(state)
