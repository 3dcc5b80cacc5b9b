r"""A bandit with five answers: each objective of `evenhand.core`, trained by exact expected gradient, meets its own optimum.

Every sum over samples, pairs or groups is enumerated, so nothing is left of Monte Carlo error or optimisation: what differs
between trained and known is a fault. Each function returns both as log-probabilities [5]. KTO, AOT and the hinges are missing:
their optima have no closed form here (a boundary, or a set).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from evenhand.core import credit, kl, policy, preference
from evenhand.theory.enumeration import (
    BETA,
    DRAW,
    FLIP,
    PREFERENCE,
    REF,
    REWARD,
    TAU,
    TOKENS,
    all_groups,
    best_answer,
    climb_from_ref,
    drawn,
    expected,
    expected_groups,
    fit,
    forward_kl_point,
    normalised,
    pairs,
    tilted,
)
from evenhand.theory.optimum import climb, minimise

Comparison = tuple[Tensor, Tensor]
"""(trained, known) log-probabilities [5]."""


# --- preference losses on every ordered pair --------------------------------------------------------------------------


def dpo() -> Comparison:
    return fit(lambda *x: preference.dpo(*x, beta=BETA)), tilted(REWARD / BETA)


def cdpo() -> Comparison:
    """Smoothed labels are Bradley-Terry for scores s if P = (sigmoid(s_i - s_j) - flip) / (1 - 2 flip)."""
    labels = (PREFERENCE - FLIP) / (1 - 2 * FLIP)
    return fit(lambda *x: preference.cdpo(*x, beta=BETA, flip=FLIP), labels), tilted(REWARD / BETA)


def robust() -> Comparison:
    """Labels flipped with probability `flip`: the clean optimum."""
    flipped = (1 - FLIP) * PREFERENCE + FLIP * (1 - PREFERENCE)
    return fit(lambda *x: preference.robust(*x, beta=BETA, flip=FLIP), flipped), tilted(REWARD / BETA)


def ipo() -> Comparison:
    """pi ~ ref exp(win rate against the data's answers / tau) (arXiv:2310.12036), for *any* preferences."""
    cyclic = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]], dtype=torch.float64)
    labels = PREFERENCE.clone()
    labels[:3, :3] = cyclic
    return fit(lambda *x: preference.ipo(*x, tau=TAU), labels), tilted(labels @ DRAW / TAU)


def length_desensitised() -> Comparison:
    n_chosen, n_rejected = pairs(TOKENS)

    def loss(c: Tensor, r: Tensor, ref_c: Tensor, ref_r: Tensor) -> Tensor:
        return preference.length_desensitised(c, r, ref_c, ref_r, n_chosen, n_rejected, beta=BETA, alpha=0.1)

    return fit(loss), tilted((REWARD - 0.1 * TOKENS) / BETA)


def local() -> Comparison:
    return fit(lambda c, r, *_: preference.local(c, r, beta=BETA)), (REWARD / BETA).log_softmax(-1)


def simpo() -> Comparison:
    """Without a margin the length-mean log-prob is reward / beta + c, with c such that probabilities sum to 1."""

    def loss(chosen: Tensor, rejected: Tensor, *_: Tensor) -> Tensor:
        n_chosen, n_rejected = pairs(TOKENS)
        return preference.simpo(chosen / n_chosen, rejected / n_rejected, beta=BETA, margin=0.0)

    return fit(loss), normalised(lambda c: TOKENS * (REWARD / BETA + c))


def orpo_term() -> Comparison:
    """The odds-ratio term alone makes log odds the rewards: p = sigmoid(reward + c), with c such that they sum to 1."""
    return fit(lambda c, r, *_: preference.orpo(c, r)), normalised(lambda c: torch.nn.functional.logsigmoid(REWARD + c))


def bradley_terry() -> Comparison:
    """The scores themselves, up to their free level; shown as a softmax, which removes it."""
    weight = PREFERENCE * drawn()
    scores = minimise(lambda s: (weight * preference.bradley_terry(*pairs(s))).sum(), torch.zeros_like(REWARD))
    return scores.log_softmax(-1), REWARD.log_softmax(-1)


# --- policy gradients with a KL penalty -------------------------------------------------------------------------------


def reinforce_kl_in_reward() -> Comparison:
    def surrogate(logp: Tensor) -> Tensor:
        shaped = (REWARD - BETA * kl.k1(logp, REF)).detach()
        return expected(logp, policy.reinforce(logp, shaped))

    return climb_from_ref(surrogate), tilted(REWARD / BETA)


def rloo_kl_in_reward() -> Comparison:
    def surrogate(logp: Tensor) -> Tensor:
        shaped = (REWARD - BETA * kl.k1(logp, REF)).detach()
        return expected_groups(logp, 3, lambda groups: policy.reinforce(logp[groups], credit.leave_one_out(shaped[groups])))

    return climb_from_ref(surrogate), tilted(REWARD / BETA)


def ppo_kl_in_reward() -> Comparison:
    """Three clipped updates per rollout, the advantage from GAE with the rollout's mean as value."""
    old = REF
    for _ in range(60):
        shaped = REWARD - BETA * kl.k1(old, REF)
        value = (old.exp() * shaped).sum().expand(5, 1)
        advantage, _ = credit.gae(shaped.unsqueeze(-1), value, torch.ones(5, 1, dtype=torch.bool), gamma=1.0, lam=0.95)

        def surrogate(logp: Tensor, old: Tensor = old, advantage: Tensor = advantage) -> Tensor:
            loss = policy.clipped(logp.unsqueeze(-1), old.unsqueeze(-1), advantage, low=0.2, high=0.2)
            return (old.exp() * loss.squeeze(-1)).sum()

        old = climb(surrogate, old, step=0.5, rounds=3)
    return old, tilted(REWARD / BETA)


def k2_in_loss() -> Comparison:
    return climb_from_ref(lambda logp: expected(logp, policy.reinforce(logp, REWARD) + BETA * kl.k2(logp, REF))), tilted(
        REWARD / BETA
    )


def k3_in_loss() -> Comparison:
    """k3's on-policy gradient is that of the forward KL, so the fixed point is another: see `forward_kl_point`."""
    surrogate = _leave_one_out_with_k3(credit.leave_one_out)
    return climb_from_ref(surrogate, step=0.5, rounds=400), forward_kl_point(BETA)


def k3_in_loss_centred() -> Comparison:
    """A centred advantage over groups of G is (G-1)/G of the leave-one-out one: the KL weighs G/(G-1) times as much."""
    surrogate = _leave_one_out_with_k3(credit.centre)
    return climb_from_ref(surrogate, step=0.5, rounds=400), forward_kl_point(BETA * 3 / 2)


def k3_off_policy() -> Comparison:
    """Samples from fixed data, both terms under the ratio and differentiated through it: KL(pi, ref) again."""
    old = DRAW.log()

    def loss(logits: Tensor) -> Tensor:
        logp = logits.log_softmax(-1)
        ratio = policy.ratio(logp, old)
        return (DRAW * ratio * (BETA * kl.k3(logp, REF) - REWARD)).sum()

    return minimise(loss, torch.zeros(5, dtype=torch.float64)).log_softmax(-1), tilted(REWARD / BETA)


# --- without a penalty: the best answer -------------------------------------------------------------------------------


def raft() -> Comparison:
    """Sample four, keep the best, fit it by likelihood; five rounds."""
    logp = REF
    for _ in range(5):
        groups, chance = all_groups(logp, 4)
        best = groups.flatten()[credit.best_of(REWARD[groups], torch.zeros(groups.shape))]
        kept = torch.zeros(5, dtype=torch.float64).index_add(0, best, chance)
        logp = _likelihood_fit(kept, logp)
    return logp, best_answer()


def grpo() -> Comparison:
    return _to_the_best(credit.standardise, lambda x, a: policy.clipped(x, x.detach(), a, low=0.2, high=0.2))


def dr_grpo() -> Comparison:
    return _to_the_best(credit.centre, lambda x, a: policy.clipped(x, x.detach(), a, low=0.2, high=0.2))


def rank() -> Comparison:
    return _to_the_best(credit.rank, policy.reinforce)


def cispo() -> Comparison:
    return _to_the_best(credit.standardise, lambda x, a: policy.cispo(x, x.detach(), a, low=0.2, high=0.2))


def gspo() -> Comparison:
    def loss(x: Tensor, advantage: Tensor) -> Tensor:
        token = x.reshape(-1, 1)
        value = policy.gspo(token, token.detach(), advantage.flatten(), torch.ones_like(token).bool(), low=3e-4, high=4e-4)
        return value.reshape(x.shape)

    return _to_the_best(credit.standardise, loss)


def topr() -> Comparison:
    """Fixed data with rewards +-1: the data's distribution over the good answers, nothing on the bad."""
    verdict = torch.where(REWARD > 0.2, 1.0, -1.0).double()
    trained = climb(lambda logp: (DRAW * policy.topr(logp, DRAW.log(), verdict)).sum(), REF, step=0.2, rounds=300)
    return trained, torch.where(verdict > 0, DRAW, 0.0).log().log_softmax(-1)


OPTIMA: dict[str, Callable[[], Comparison]] = {
    "DPO -> ref exp(r/beta)": dpo,
    "cDPO -> ref exp(s/beta), s the scores of the smoothed labels": cdpo,
    "robust DPO under flipped labels -> the clean optimum": robust,
    "IPO, intransitive labels -> ref exp(win rate/tau)": ipo,
    "length-desensitised DPO -> ref exp((r - alpha n)/beta)": length_desensitised,
    "local -> exp(r/beta)": local,
    "SimPO, margin 0 -> mean log-prob = r/beta + c": simpo,
    "ORPO's odds-ratio term -> log odds = r + c": orpo_term,
    "Bradley-Terry -> the rewards, up to their level": bradley_terry,
    "REINFORCE, KL in the reward -> ref exp(r/beta)": reinforce_kl_in_reward,
    "RLOO, KL in the reward -> ref exp(r/beta)": rloo_kl_in_reward,
    "PPO, KL in the reward, 3 updates per rollout -> ref exp(r/beta)": ppo_kl_in_reward,
    "k2 in the loss -> ref exp(r/beta)": k2_in_loss,
    "k3 in the loss -> ref beta/(beta + mean r - r)": k3_in_loss,
    "k3 in the loss, centred groups of G -> the same at beta G/(G-1)": k3_in_loss_centred,
    "k3 off-policy, under the ratio -> ref exp(r/beta)": k3_off_policy,
    "RAFT -> the best answer": raft,
    "GRPO without KL -> the best answer": grpo,
    "Dr.GRPO -> the best answer": dr_grpo,
    "rank advantage -> the best answer": rank,
    "CISPO -> the best answer": cispo,
    "GSPO -> the best answer": gspo,
    "TOPR on +-1 data -> the data, given that the answer is good": topr,
}


# --- helpers -----------------------------------------------------------------------------------------------------------


def _likelihood_fit(kept: Tensor, start: Tensor) -> Tensor:
    return minimise(lambda x: -(kept * x.log_softmax(-1)).sum(), start).log_softmax(-1)


def _leave_one_out_with_k3(advantage: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def surrogate(logp: Tensor) -> Tensor:
        penalty = expected(logp, BETA * kl.k3(logp, REF))
        return penalty + expected_groups(logp, 3, lambda groups: policy.reinforce(logp[groups], advantage(REWARD[groups])))

    return surrogate


def _to_the_best(advantage: Callable[[Tensor], Tensor], loss: Callable[[Tensor, Tensor], Tensor]) -> Comparison:
    def surrogate(logp: Tensor) -> Tensor:
        return expected_groups(logp, 3, lambda groups: loss(logp[groups], advantage(REWARD[groups])))

    return climb_from_ref(surrogate, rounds=150), best_answer()
