"""A tabular language model: a tree whose every node chooses one of A tokens, H times; its A^H leaves are the answers.

Token-level policies over the tree and distributions over its leaves are one set (as many free logits, every full-support
distribution factorises), which is what makes the theorems exact here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ProbabilityTree:
    """`actions` tokens, `horizon` of them per answer. Leaves are numbered in base `actions`, the first token leading.

    >>> ProbabilityTree(actions=3, horizon=2).leaves, ProbabilityTree(actions=3, horizon=2).nodes
    (9, 4)
    """

    actions: int
    horizon: int

    @property
    def leaves(self) -> int:
        return self.actions**self.horizon

    @property
    def nodes(self) -> int:
        """Inner nodes, numbered level by level from the root."""
        return sum(self.actions**depth for depth in range(self.horizon))

    def levels(self, logits: Tensor) -> list[Tensor]:
        """Logits [X, nodes, A] split by depth: [X, A^depth, A] each."""
        return list(logits.split([self.actions**depth for depth in range(self.horizon)], dim=1))

    def leaf_logp(self, logits: Tensor) -> Tensor:
        """Log-probability of every answer under the policy with node logits [X, nodes, A]: [X, leaves], nats."""
        total = logits.new_zeros(logits.shape[0], 1)
        for level in self.levels(logits):
            total = (total.unsqueeze(-1) + level.log_softmax(-1)).flatten(1)
        return total

    def shared_leaf_logp(self, logits: Tensor) -> Tensor:
        """As `leaf_logp` for a policy that ignores its state: the same logits [X, A] at every node. A restricted class."""
        return self.leaf_logp(logits.unsqueeze(1).expand(-1, self.nodes, -1))

    def soft_optimal(self, reward: Tensor, ref_logits: Tensor, beta: float) -> Tensor:
        """Leaf log-probabilities [X, leaves] of the policy that maximises E[reward] - beta KL(pi, ref), by backward induction.

        `V(leaf) = reward`, `Q(s, a) = V(s a)`, `V(s) = beta log sum_a ref(a|s) exp(Q(s, a) / beta)`, and
        `pi(a|s) ~ ref(a|s) exp(Q(s, a) / beta)`. `reward` [X, leaves]; `ref_logits` [X, nodes, A].
        """
        value, policy = reward, []
        for level in reversed(self.levels(ref_logits)):
            preference = level.log_softmax(-1) + value.reshape(level.shape) / beta
            policy.append(preference)
            value = beta * torch.logsumexp(preference, -1)
        return self.leaf_logp(torch.cat(policy[::-1], dim=1))
