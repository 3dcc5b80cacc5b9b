"""Rewards, soft-optimal policies and soft Q-functions are one set, and not equally far from each other (All Roads, appendix D).

`Q(s, a) = log sum exp r(answer)` over all answers that go on from prefix s with token a, `pi(a|s)` its softmax. Entropy weight 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evenhand.theory.likelihood import Problem, policy_mle, reward_mle
from evenhand.theory.tree import ProbabilityTree


def q_values(tree: ProbabilityTree, reward: Tensor) -> Tensor:
    """The definition, by enumeration: Q [X, nodes, A] of a reward [X, leaves]."""
    levels = []
    for depth in range(tree.horizon):
        below = tree.actions ** (tree.horizon - depth - 1)
        levels.append(reward.reshape(len(reward), tree.actions**depth, tree.actions, below).logsumexp(-1))
    return torch.cat(levels, dim=1)


def by_backward_induction(tree: ProbabilityTree, reward: Tensor) -> Tensor:
    """The same by dynamic programming: `Q(s, a) = V(s a)`, `V(s) = log sum_a exp Q(s, a)`."""
    value, levels = reward, []
    for depth in reversed(range(tree.horizon)):
        q = value.reshape(len(reward), tree.actions**depth, tree.actions)
        levels.append(q)
        value = q.logsumexp(-1)
    return torch.cat(levels[::-1], dim=1)


def induction_is_enumeration(p: Problem) -> float:
    """Both ways to Q agree."""
    reward = reward_mle(p)
    return _gap(q_values(p.tree, reward), by_backward_induction(p.tree, reward))


def softmax_of_q_is_optimal(p: Problem) -> float:
    """The softmax of Q, token by token, is the answers' softmax of the reward (equation 11)."""
    reward = reward_mle(p)
    return _gap(p.tree.leaf_logp(q_values(p.tree, reward)), reward.log_softmax(-1))


def likelihood_fits_q(p: Problem) -> float:
    """The policy that maximum likelihood finds has, prefix by prefix, the log-probs of the fitted reward's Q: it learned Q."""
    q = q_values(p.tree, reward_mle(p)).log_softmax(-1)
    return _gap(q, conditional(p.tree, policy_mle(p)))


def round_trip(p: Problem) -> float:
    """reward -> Q -> policy -> local reward: the reward again, up to a shift per prompt (equation 22)."""
    reward = reward_mle(p)
    local = p.tree.leaf_logp(q_values(p.tree, reward))
    return _gap(_centred(local), _centred(reward))


def mean_in_place_of_softmax(p: Problem) -> float:
    """The shortcut that is none: logits from the mean reward of what follows, in place of dynamic programming (equation 23)."""
    reward = reward_mle(p)
    levels = [reward.reshape(len(reward), p.tree.actions**depth, p.tree.actions, -1).mean(-1) for depth in range(p.tree.horizon)]
    return _gap(p.tree.leaf_logp(torch.cat(levels, dim=1)), reward.log_softmax(-1))


def conditional(tree: ProbabilityTree, leaf_logp: Tensor) -> Tensor:
    """Next-token log-probs [X, nodes, A] of a distribution over answers [X, leaves]: sums over what follows, normalised."""
    return q_values(tree, leaf_logp).log_softmax(-1)


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(-1, keepdim=True)


def _gap(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()
