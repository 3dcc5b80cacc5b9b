"""Credits of published methods beside those of `credits`: each is one registration of a function of `evenhand.core`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from typing_extensions import override

from evenhand.core import credit as core
from evenhand.core import group_credit, pass_at_k
from evenhand.errors import UserError, did_you_mean
from evenhand.train.examples import Example
from evenhand.train.rollouts.credits import CREDITS, Gae, GroupCredit, credit, padded, token_advantages
from evenhand.train.rollouts.experience import Credit, Experience, stated
from evenhand.train.rollouts.shaping import GREEDY, UNSHAPED
from evenhand.types import Head


class LengthCredit(GroupCredit):
    """A credit of rewards and lengths, both [P, G]."""

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return experience.credited(self.function(experience.completion_reward, experience.lengths))


gpg = credit("gpg")(group_credit.valid_share)
batch_deviation = credit("batch_deviation")(group_credit.batch_deviation)
maxrl = credit("maxrl")(group_credit.maximum_likelihood)
max_minus_second = credit("max_minus_second")(pass_at_k.max_minus_second)
opo = credit("opo", LengthCredit)(group_credit.length_weighted)
reinforce_pp_baseline = credit("reinforce_pp_baseline", LengthCredit)(group_credit.whitened_centre)

BEST_OF_K = {
    "pass_at_k": pass_at_k.max_at_k, "pass_at_k_inclusive": pass_at_k.inclusive_max_at_k, "pass_at_k_z": pass_at_k.pass_at_k_z,
}  # fmt: skip
"""Credits for the best of k answers, by name."""


@dataclass(frozen=True)
class BestOfK(GroupCredit):
    """A credit for the best of `k` answers."""

    k: int = 4

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return experience.credited(self.function(experience.completion_reward, k=self.k))

    @property
    @override
    def least(self) -> int:
        return self.k


for _name, _function in BEST_OF_K.items():
    CREDITS.register(_name)(BestOfK(_name, _function))


@dataclass(frozen=True)
class AgainstGreedy(Credit):
    """The reward less that of the prompt's greedy answer (ReMax)."""

    against_greedy: ClassVar[bool] = True

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return experience.credited(group_credit.against(experience.completion_reward, experience.part(GREEDY)))

    @override
    def about(self) -> str:
        return f"remax: {stated(group_credit.against)}"


@dataclass(frozen=True)
class Decoupled(Credit):
    """Every part of a reward compared on its own, weighted, summed, whitened (GDPO); a reward without parts is one part.

    `weights` by part; empty: every part of the reward itself, weighted 1. A part's own parts (`name/part`) are none of them.
    """

    compares: ClassVar[bool] = True
    weights: Mapping[str, float] = field(default_factory=dict, hash=False)

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        known = dict.fromkeys(name for e in experience.examples for name in e.tokens.group.parts)
        own = {name: 1.0 for name in known if "/" not in name and name != UNSHAPED}
        for name in self.weights:
            if name not in known:
                fix = did_you_mean(name, known) if known else "give the reward parts, as `weighted` does, or leave `weights` out"
                raise UserError(f"the reward has no part '{name}'", where="gdpo.weights", fix=fix)
        chosen = self.weights or own
        if not chosen:
            return experience.credited(group_credit.decoupled([experience.reward], [1.0]))
        rewards = [torch.where(experience.reward.isnan(), torch.nan, experience.part(name)) for name in chosen]
        return experience.credited(group_credit.decoupled(rewards, list(chosen.values())))

    @override
    def about(self) -> str:
        return f"gdpo: {stated(group_credit.decoupled)}"


@dataclass(frozen=True, kw_only=True)
class TokenReturn(Credit):
    """`A_t = whiten(r - kl sum_{j >= t} (old_logp_j - ref_logp_j))`, over every token of the rollout (REINFORCE++)."""

    per_completion: ClassVar[bool] = False

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        advantage, _, mask = token_advantages(experience, gamma=1.0, lam=1.0)
        return experience.credited_tokens(core.whiten(advantage, mask))


@dataclass(frozen=True, kw_only=True)
class LengthAdaptiveGae(Gae):
    """`lam = 1 - 1 / (alpha n)` for an answer of n tokens, whitened; the value learns the plain return, lam = 1 (VAPO).

    In the first `warmup` rollouts the advantage is 0, so that the value alone learns, from the returns of a policy that stays.
    The score of an answer, 0 in the warm-up, is kept: answers above 0 are imitated.
    """

    alpha: float = 0.05
    warmup: int = 0

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        lam = (1 - 1 / (self.alpha * experience.lengths.flatten().clamp(min=1))).clamp(min=0.0)
        advantage, _, mask = token_advantages(experience, gamma=self.gamma, lam=lam)
        returns = token_advantages(experience, gamma=self.gamma, lam=1.0)[1]
        warm = experience.rollout < self.warmup
        whitened = torch.zeros_like(advantage) if warm else core.whiten(advantage, mask)
        known = torch.zeros_like(experience.reward) if warm else experience.reward.nan_to_num(0.0)
        credited = zip(experience.credited_tokens(whitened, returns), known.tolist(), strict=True)
        return [replace(e, per_completion={**e.per_completion, "score": tuple(scores)}) for e, scores in credited]

    @override
    def about(self) -> str:
        return f"vapo: {stated(type(self))}"


@dataclass(frozen=True, kw_only=True)
class OptimalToken(Credit):
    """`A_t = G_t - sum_i G_it W_it / sum_i W_it`, over the answers of a group that reach token t (optimal token baseline)."""

    reads: ClassVar[frozenset[Head]] = frozenset({Head.COLLISION})
    per_completion: ClassVar[bool] = False
    compares: ClassVar[bool] = True

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        to_go, _, mask = token_advantages(experience, gamma=1.0, lam=1.0)
        logp, collision = (padded(experience, name) for name in ("old_logp", "collision"))
        grouped = [
            of.reshape(*experience.reward.shape, -1) for of in (to_go, group_credit.score_energy(logp, collision, mask), mask)
        ]
        return experience.credited_tokens(group_credit.optimal_token(*grouped).flatten(0, 1))


CREDITS.register("optimal_token")(OptimalToken())
CREDITS.register("remax")(AgainstGreedy())
CREDITS.register("gdpo")(Decoupled())
CREDITS.register("reinforce_pp")(TokenReturn())
CREDITS.register("vapo")(LengthAdaptiveGae())
