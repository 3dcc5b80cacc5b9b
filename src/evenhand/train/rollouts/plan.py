"""How experience is gathered and what is learned from it: the online half of a method."""

from __future__ import annotations

from dataclasses import dataclass, field

from evenhand.train.rollouts.credits import leave_one_out
from evenhand.train.rollouts.experience import Credit
from evenhand.train.rollouts.kl import KlPenalty
from evenhand.train.rollouts.sampler import Exploration
from evenhand.train.rollouts.schedule import Schedule
from evenhand.train.rollouts.shaping import LengthPenalty, Shaping, Truncation


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """The parts in the order in which a rollout meets them: sampled, shaped, credited (or selected from), trained on.

    `credit` turns rewards into advantages, or keeps a pair or the best of each group.
    """

    completions_per_prompt: int = 8
    exploration: Exploration = field(default_factory=Exploration)
    shaping: Shaping = field(default_factory=LengthPenalty)
    kl: KlPenalty = field(default_factory=KlPenalty)
    truncation: Truncation = field(default_factory=Truncation)
    credit: Credit = leave_one_out
    schedule: Schedule = field(default_factory=Schedule)
