"""All roads lead to likelihood (Swamy et al. 2025, arXiv:2503.01067), measured on a tabular tree.

Two prompts, answers of two tokens out of three, counts of preferences on every ordered pair of answers (so that a finite
maximum-likelihood estimate exists, unique up to a shift per prompt). Each function returns a residual: the largest absolute
difference in log-probability (nats) between two policies that a theorem says are one, or that lack of an assumption parts.
The theory's KL weight is 1 unless a `beta` is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from evenhand.core import preference
from evenhand.seeding import generator
from evenhand.theory.optimum import minimise
from evenhand.theory.tree import ProbabilityTree


@dataclass(frozen=True, slots=True)
class Problem:
    """`counts[x, i, j]`: how often answer i beat answer j under prompt x. `ref_logits` [X, nodes, A]: the reference policy."""

    tree: ProbabilityTree
    counts: Tensor
    ref_logits: Tensor

    @property
    def ref_logp(self) -> Tensor:
        return self.tree.leaf_logp(self.ref_logits)


def problem(*, actions: int = 3, horizon: int = 2, prompts: int = 2, seed: int = 0) -> Problem:
    """A random instance: between 1 and 9 wins in each direction of every pair, a reference with standard normal logits."""
    tree = ProbabilityTree(actions, horizon)
    draw = generator(seed, "theory", actions, horizon)
    counts = torch.randint(1, 10, (prompts, tree.leaves, tree.leaves), generator=draw).double()
    counts.diagonal(dim1=-2, dim2=-1).zero_()
    return Problem(tree, counts, torch.randn(prompts, tree.nodes, actions, generator=draw, dtype=torch.float64))


# --- the roads --------------------------------------------------------------------------------------------------------


def reward_mle(p: Problem) -> Tensor:
    """The global reward model: one free score per answer, by Bradley-Terry likelihood; [X, leaves]."""
    start = torch.zeros(p.counts.shape[:2], dtype=torch.float64)
    return minimise(lambda r: _mean(p, preference.bradley_terry(*_pairs(r))), start)


def policy_mle(p: Problem, *, beta: float = 1.0, shared: bool = False) -> Tensor:
    """The policy whose own log-probabilities, times beta, are the reward model (`local`); leaf log-probs."""
    return _over_policies(p, lambda logp: _mean(p, preference.local(*_pairs(logp), beta=beta)), shared)


def dpo(p: Problem, *, beta: float = 1.0, shared: bool = False) -> Tensor:
    """Direct preference optimisation against the reference; leaf log-probs."""
    ref = _pairs(p.ref_logp)
    return _over_policies(p, lambda logp: _mean(p, preference.dpo(*_pairs(logp), *ref, beta=beta)), shared)


def rlhf(p: Problem, reward: Tensor, ref_logp: Tensor, *, beta: float = 1.0, shared: bool = False) -> Tensor:
    """Gradient ascent on E[reward] - beta KL(pi, ref); leaf log-probs. A `ref_logp` of zeros leaves an entropy bonus."""
    return _over_policies(p, lambda logp: (logp.exp() * (beta * (logp - ref_logp) - reward)).sum(), shared)


# --- what the theorems promise ----------------------------------------------------------------------------------------


def lemma_2_1_backward_induction(p: Problem, *, beta: float) -> float:
    """Soft-optimal control of the tree is the tilted distribution: P ~ P_ref exp(r / beta)."""
    reward = reward_mle(p)
    return _gap(p.tree.soft_optimal(reward, p.ref_logits, beta), _tilted(p.ref_logp, reward / beta))


def lemma_2_1_gradient(p: Problem, *, beta: float) -> float:
    """Gradient ascent on E[r] - beta KL reaches the same distribution."""
    reward = reward_mle(p)
    return _gap(rlhf(p, reward, p.ref_logp, beta=beta), _tilted(p.ref_logp, reward / beta))


def theorem_2_2(p: Problem) -> float:
    """RLHF is maximum likelihood: reward model, then RL with an entropy bonus, against `policy_mle`."""
    return _gap(rlhf(p, reward_mle(p), torch.zeros_like(p.ref_logp)), policy_mle(p))


def theorem_2_2_likelihood(p: Problem) -> float:
    """Both reach the same likelihood: mean nats per comparison."""
    return abs(_likelihood(p, reward_mle(p)) - _likelihood(p, policy_mle(p)))


def theorem_2_3(p: Problem, *, beta: float) -> float:
    """RLHF with a KL penalty is DPO."""
    return _gap(rlhf(p, reward_mle(p), p.ref_logp, beta=beta), dpo(p, beta=beta))


def theorem_2_3_normaliser(p: Problem) -> float:
    """log pi_dpo = log pi_mle + log pi_ref - log Z(prompt): the published proof leaves out Z, which is not 1."""
    product = policy_mle(p) + p.ref_logp
    return _gap(dpo(p), product - product.logsumexp(-1, keepdim=True))


def theorem_2_3_without_normaliser(p: Problem) -> float:
    """The same identity as printed, without Z: off by |log Z|, the same for all answers to a prompt."""
    return _gap(dpo(p), policy_mle(p) + p.ref_logp)


def theorem_3_1(p: Problem) -> float:
    """Over a simple class of rewards (linear in two features), likelihood over its soft-optimal policies is RLHF."""
    draw = generator(0, "theory", "features")
    features = torch.randn(*p.counts.shape[:2], 2, generator=draw, dtype=torch.float64)
    uniform = torch.zeros_like(p.ref_logits)
    start = torch.zeros(2, dtype=torch.float64)
    simple = minimise(lambda w: _mean(p, preference.bradley_terry(*_pairs(features @ w))), start)

    def policy(w: Tensor) -> Tensor:
        return p.tree.soft_optimal(features @ w, uniform, 1.0)

    weight = minimise(lambda w: _mean(p, preference.local(*_pairs(policy(w)), beta=1.0)), start)
    return _gap(rlhf(p, features @ simple, torch.zeros_like(p.ref_logp)), policy(weight))


def local_reward_at_its_own_beta(p: Problem, *, beta: float) -> float:
    """The reward beta log pi, optimised with entropy weight beta, returns pi."""
    policy = policy_mle(p, beta=beta)
    return _gap(rlhf(p, beta * policy, torch.zeros_like(policy), beta=beta), policy)


def local_reward_at_beta_one(p: Problem, *, beta: float) -> float:
    """The same reward with weight 1 returns another policy: ..."""
    policy = policy_mle(p, beta=beta)
    return _gap(rlhf(p, beta * policy, torch.zeros_like(policy)), policy)


def local_reward_is_tempered(p: Problem, *, beta: float) -> float:
    """... pi^beta, normalised."""
    policy = policy_mle(p, beta=beta)
    return _gap(rlhf(p, beta * policy, torch.zeros_like(policy)), (beta * policy).log_softmax(-1))


# --- what fails without the assumptions -------------------------------------------------------------------------------


def restricted_policies_free_rewards(p: Problem) -> float:
    """Policies that ignore their state, rewards that do not: RLHF and maximum likelihood part."""
    return _gap(rlhf(p, reward_mle(p), torch.zeros_like(p.ref_logp), shared=True), policy_mle(p, shared=True))


def restricted_policies_restricted_rewards(p: Problem) -> float:
    """The same policies with rewards from the same class: they meet again."""
    best = policy_mle(p, shared=True)
    return _gap(rlhf(p, best, torch.zeros_like(best), shared=True), best)


def restricted_policies_foreign_reference(p: Problem) -> float:
    """Isomorphic restricted classes, but a reference outside them: DPO and RLHF part (theorem 2.3 needs realisability)."""
    best = policy_mle(p, shared=True)
    return _gap(rlhf(p, best, p.ref_logp, shared=True), dpo(p, shared=True))


def uncovered_answers(p: Problem) -> tuple[float, float]:
    """Only half of the answers were compared: change in the DPO loss, and in the policy, as mass moves to the others."""
    seen = torch.arange(p.tree.leaves) < p.tree.leaves // 2
    partial = Problem(p.tree, p.counts * (seen.unsqueeze(-1) & seen), p.ref_logits)
    policy = p.ref_logp
    moved = (policy + torch.where(seen, 0.0, 1.0)).log_softmax(-1)
    ref = _pairs(p.ref_logp)
    before, after = (_mean(partial, preference.dpo(*_pairs(x), *ref, beta=1.0)).item() for x in (policy, moved))
    return abs(after - before), _gap(moved, policy)


# --- helpers ----------------------------------------------------------------------------------------------------------


def _pairs(score: Tensor) -> tuple[Tensor, Tensor]:
    """[X, leaves] as (better, worse), broadcasting to [X, leaves, leaves]."""
    return score.unsqueeze(-1), score.unsqueeze(-2)


def _mean(p: Problem, loss: Tensor) -> Tensor:
    return (p.counts * loss).sum() / p.counts.sum()


def _likelihood(p: Problem, score: Tensor) -> float:
    return _mean(p, preference.bradley_terry(*_pairs(score))).item()


def _over_policies(p: Problem, loss: Callable[[Tensor], Tensor], shared: bool) -> Tensor:
    leaf_logp = p.tree.shared_leaf_logp if shared else p.tree.leaf_logp
    prompts, _, actions = p.ref_logits.shape
    shape = (prompts, actions) if shared else (prompts, p.tree.nodes, actions)
    return leaf_logp(minimise(lambda x: loss(leaf_logp(x)), torch.zeros(shape, dtype=torch.float64)))


def _tilted(ref_logp: Tensor, exponent: Tensor) -> Tensor:
    return (ref_logp + exponent).log_softmax(-1)


def _gap(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()
