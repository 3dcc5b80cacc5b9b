"""Sampling and scoring by several ranks: each does a share, and all have everything afterwards, as one process would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from evenhand.protocols import Engine, Reward
from evenhand.train.ranks import Ranks, in_order
from evenhand.types import Group, Prompt, Sampling, Scores


def engine_on(ranks: Ranks, engine: Engine, policy: nn.Module) -> Engine:
    """The engine, which asks each rank for its share of the prompts."""
    return engine if ranks.size == 1 else SharedEngine(ranks, engine, policy)


def reward_on(ranks: Ranks, reward: Reward | None) -> Reward | None:
    """The reward, which asks each rank for its share of the groups: a judge is paid for, and a function called, once."""
    return reward if ranks.size == 1 or reward is None else SharedReward(ranks, reward)


@dataclass(frozen=True, slots=True)
class SharedEngine:
    """Prompts split over ranks, all occurrences of one prompt on one of them: they continue the numbering of its completions.

    Random numbers are keyed by prompt and completion, so that every group is the one that one process samples.
    """

    ranks: Ranks
    engine: Engine
    policy: nn.Module

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling | Sequence[Sampling],
        *,
        max_prompt: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Group]:
        seen: dict[str, int] = {}
        owner = [seen.setdefault(p.id, len(seen)) % self.ranks.size for p in prompts]
        mine = [index for index, rank in enumerate(owner) if rank == self.ranks.rank]
        with self.ranks.whole(self.policy):
            asked = [prompts[index] for index in mine]
            groups = self.engine.generate(asked, n, sampling, max_prompt=max_prompt, progress=progress) if asked else []
        return in_order(self.ranks, dict(zip(mine, groups, strict=True)))


@dataclass(frozen=True, slots=True)
class SharedReward:
    """Groups split over ranks. A reward sees whole groups, one at a time, so that no score depends on the split."""

    ranks: Ranks
    reward: Reward

    def __call__(self, groups: Sequence[Group], /) -> list[Scores]:
        mine = range(self.ranks.rank, len(groups), self.ranks.size)
        scores = self.reward([groups[index] for index in mine]) if mine else []
        return in_order(self.ranks, dict(zip(mine, scores, strict=True)))
