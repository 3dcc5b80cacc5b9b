"""Two ways to bring a distribution into a class of policies: the forward KL, likelihood's, and the reverse KL, RL's.

The class has one parameter: `pi_t ~ exp(t f)` over five answers. A target inside of it is its own nearest member either way;
for one outside of it the two ways part. That is the difference between theorem 2.2 and its failing control (arXiv:2503.01067,
figure 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from evenhand.core import kl
from evenhand.theory.optimum import minimise

FEATURE = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0], dtype=torch.float64)
INSIDE = 1.2
"""The parameter of the target that is a member."""
TWO_PEAKS = torch.tensor([0.38, 0.05, 0.04, 0.05, 0.48], dtype=torch.float64).log()
"""A target that no member is like: answers at both ends."""


def member(t: Tensor) -> Tensor:
    """Log-probs of `pi_t`, [..., 5]."""
    return (t.unsqueeze(-1) * FEATURE).log_softmax(-1)


def forward(t: Tensor, target: Tensor) -> Tensor:
    """KL(target, pi_t), nats."""
    return kl.exact(target, member(t))


def reverse(t: Tensor, target: Tensor) -> Tensor:
    """KL(pi_t, target), nats."""
    return kl.exact(member(t), target)


def nearest(target: Tensor) -> tuple[float, float]:
    """The parameters of the nearest members, by the forward and by the reverse KL."""
    start = torch.tensor(0.5, dtype=torch.float64)
    return float(minimise(lambda t: forward(t, target), start)), float(minimise(lambda t: reverse(t, target), start))


def inside_apart() -> float:
    """How far the two nearest members of a target inside the class lie from it."""
    return max(abs(t - INSIDE) for t in nearest(member(torch.tensor(INSIDE, dtype=torch.float64))))


def outside_apart() -> float:
    """How far they lie from each other where the target is outside."""
    first, second = nearest(TWO_PEAKS)
    return abs(first - second)
