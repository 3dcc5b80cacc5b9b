"""Credits that need no reward: the teacher's log-probs are the signal, or the objective itself compares with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from evenhand.core import distillation
from evenhand.train.examples import Example
from evenhand.train.rollouts.experience import Credit, Experience, stated
from evenhand.types import Need


@dataclass(frozen=True)
class TeacherAdvantage(Credit):
    """`A_t = log T(y_t) - log S(y_t)` at every token, T the teacher and S the policy at the rollout's weights."""

    per_completion: ClassVar[bool] = False
    rewarded: ClassVar[bool] = False

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        rows = [
            distillation.token_advantage(own, teacher)
            for e in experience.examples
            for own, teacher in zip(e.per_token["old_logp"], e.per_token["ref_logp"], strict=True)
        ]
        return experience.credited_tokens(pad_sequence(rows, batch_first=True))

    @override
    def about(self) -> str:
        return stated(distillation.token_advantage)


@dataclass(frozen=True)
class Uncredited(Credit):
    """Every answer alike: what is learned from it is the objective's matter."""

    provides: ClassVar[frozenset[Need]] = frozenset()
    per_completion: ClassVar[bool] = False
    rewarded: ClassVar[bool] = False

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return list(experience.examples)
