"""Kullback-Leibler divergence of the policy from its reference: per-sample estimators, and the exact sum over a vocabulary.

With samples x ~ pi and D = logp - ref_logp (nats), all verified by enumeration in the tests:

| estimator | value        | mean value         | detached, in the reward | differentiated, in the loss (on-policy)  |
|-----------|--------------|--------------------|-------------------------|------------------------------------------|
| k1        | D            | KL(pi, ref)        | gradient of KL(pi, ref) | 0: no effect at all                      |
| k2        | D^2 / 2      | biased             | biased                  | gradient of KL(pi, ref)                  |
| k3        | e^-D - 1 + D | KL(pi, ref), >= 0  | biased                  | gradient of KL(ref, pi), the *forward* KL |

So k1 belongs in the reward; k2 and k3 belong in the loss, and they pull towards different points. Off-policy, differentiate
`ratio * k3` *through* the ratio (`policy.ratio`): its expectation under the old policy has the exact gradient of KL(pi, ref).
Estimators: Schulman, "Approximating KL divergence" (2020).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evenhand.core.stable import expm1


def k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """`D = logp - ref_logp`: unbiased, any sign. Shapes broadcast; nats."""
    return logp - ref_logp


def k2(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """`D^2 / 2 >= 0`: a biased value whose on-policy gradient is exactly that of KL(pi, ref). Shapes broadcast; nats."""
    return 0.5 * (logp - ref_logp).square()


def k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """`e^-D - 1 + D >= 0`: unbiased, low variance; GRPO's estimator. Shapes broadcast; nats.

    Beyond an exponent of 20 the exponential goes on as its tangent: value and gradient stay finite and keep their sign
    (clamping instead would leave only `+D`, which pushes an already too unlikely token further down).

    >>> import torch
    >>> k3(torch.tensor([0.0, math.log(2)]), torch.tensor(0.0))
    tensor([0.0000, 0.1931])
    """
    difference = ref_logp - logp
    return expm1(difference) - difference


def exact(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`KL(p, q) = sum_v p(v) (log p(v) - log q(v))` over the last axis, `[..., V] -> [...]`; nats.

    Both are normalised log-probabilities. A token with p = 0 adds 0; one with q = 0 < p makes the divergence infinite.

    >>> import torch
    >>> exact(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log())
    tensor(0.1438)
    """
    supported = log_p > -math.inf
    difference = torch.where(supported, log_p - log_q, 0.0)
    return (log_p.exp() * difference).sum(-1)
