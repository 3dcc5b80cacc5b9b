"""Selections that also mark an answer which is to become less likely, and win rates within a group as its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from typing_extensions import override

from evenhand.train.examples import Example, with_pairs
from evenhand.train.rollouts.experience import Credit, Experience
from evenhand.train.rollouts.selections import Pairing
from evenhand.train.rollouts.shaping import UNSHAPED
from evenhand.types import Group, Need


def marked(example: Example, places: Sequence[int]) -> Example:
    """The example with its completions at `places` marked."""
    flags = tuple(float(n in places) for n in range(len(example.tokens.completions)))
    return replace(example, per_completion={**example.per_completion, "optimism": flags})


@dataclass(frozen=True)
class PartnerMarked(Pairing):
    """A pair of each group; whatever the partner wrote, the second half of the group, is marked (XPO)."""

    provides: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS, Need.OPTIMISM})

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        size = experience.reward.shape[1]
        theirs = range(-(-size // 2), size)
        return super().__call__(replace(experience, examples=[marked(e, theirs) for e in experience.examples]))


@dataclass(frozen=True)
class LastMarked(Pairing):
    """A pair of each group without its last answer, which is kept beside the pair and marked (SELM: the greedy answer)."""

    provides: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS, Need.OPTIMISM})

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        size = experience.reward.shape[1]
        pairs = self.function(experience.scores[:, :-1], lambda name: experience.uniform(name)[:, :-1]).tolist()
        found = []
        for better, worse in pairs:  # places among size - 1 answers of each group
            example, (i, j) = experience.examples[better // (size - 1)], (better % (size - 1), worse % (size - 1))
            pair = with_pairs(example.only([i, j]))
            texts = [c.text.strip() for c in pair.tokens.group.completions]
            if texts[0] != texts[1] and pair.pairs:
                three = marked(example.only([i, j, size - 1]), [2])
                found.append(replace(three, pairs=pair.pairs, margin=pair.margin, pair_weight=pair.pair_weight))
        return found


@dataclass(frozen=True, kw_only=True)
class SoftValue(Credit):
    """`r - t log mean exp(r' / t)`, r' the rewards of the partner's half of the group: A*-PO's optimal advantage.

    Only the policy's own half is trained on, and no group whose value nothing tells.
    """

    temperature: float = 0.5

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        half = -(-experience.reward.shape[1] // 2)
        own, theirs = experience.reward[:, :half], experience.reward[:, half:]
        count = theirs.isnan().logical_not().sum(-1)
        scaled = (theirs / self.temperature).nan_to_num(nan=-torch.inf)
        value = self.temperature * (scaled.logsumexp(-1) - count.log())
        told = [e.only(range(half)) for e, n in zip(experience.examples, count.tolist(), strict=True) if n]
        return replace(experience, examples=told).credited((own - value[:, None])[count > 0].nan_to_num(0.0))


@dataclass(frozen=True)
class AgainstPartner(Credit):
    """`A_i = mean_j sigmoid(r_i - r'_j) - 1/2 - kl_i`, r' the rewards of the partner's answers, which are not trained on."""

    compares: ClassVar[bool] = True

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        own = -(-experience.reward.shape[1] // 2)
        mine, theirs = experience.reward[:, :own], experience.reward[:, own:]
        kl = (experience.reward - experience.completion_reward)[:, :own]
        advantage = torch.sigmoid(mine[:, :, None] - theirs[:, None, :]).nanmean(-1) - 0.5 - kl
        cut = [example.only(range(own)) for example in experience.examples]
        return replace(experience, examples=cut).credited(advantage.nan_to_num(0.0))


@dataclass(frozen=True)
class GroupWinRate:
    """Each answer's share of wins against the others of its group, ties by halves: its score, in place of the reward.

    What is asked of a game between the policy and itself (Swamy et al. 2024). An answer without a score has none here either.
    """

    def __call__(self, group: Group) -> Group:
        known = [s for s in group.scores if s == s]
        rivals = max(1, len(known) - 1)
        wins = tuple((sum((s > t) + 0.5 * (s == t) for t in known) - 0.5) / rivals if s == s else s for s in group.scores)
        return replace(group, scores=wins, parts={**group.parts, UNSHAPED: group.scores})
