"""Surrogates beside PPO's clip: the geometric mean, soft gates, probabilities instead of ratios, chosen tokens. See
`core.policy`.

Per token `[N, C]`, unreduced, lower is better. `old_logp` are the rollout's, in nats; `advantage` [N, 1] or [N, C]. Exponents
are held within +-20, so that values and gradients stay finite in float32. At ratio 1 the gradient of every one of them is that
of `policy.reinforce`, under the reduction that it names."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evenhand.core.policy import LIMIT, clipped, ratio


def gmpo(logp: Tensor, old_logp: Tensor, advantage: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """`-A exp(mean_t c_t)`, `c_t = min(d, clip(d))` where A > 0, else `max(d, clip(d))`: GMPO (arXiv:2507.20673, eq. 4).

    d is the log-ratio, clipped in log space to [-low, high]. One value per completion, repeated over its tokens, for the
    reduction `sequence_mean`: GRPO's gradient at ratio 1. A token outside of the clip loses its gradient, the others keep
    theirs, where GSPO drops the answer.

    >>> one = torch.ones(1, 2)
    >>> gmpo(one * 3, one, one[:, :1], one.bool(), low=0.4, high=0.4)
    tensor([[-1.4918, -1.4918]])
    """
    difference = logp - old_logp
    near = difference.clamp(-low, high)
    held = torch.where(advantage > 0, torch.minimum(difference, near), torch.maximum(difference, near))
    mean = torch.where(mask, held, 0.0).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    return (-advantage * torch.exp(mean.clamp(max=LIMIT))).expand_as(logp)


def sapo(logp: Tensor, old_logp: Tensor, advantage: Tensor, *, tau: float, tau_negative: float) -> Tensor:
    """`-A (4 / tau) sigmoid(tau (rho - 1))`, `tau_negative` where A < 0: SAPO (arXiv:2511.20347, eq. 5).

    A smooth gate around the ratio: its slope is 1 at rho = 1 and falls to either side. Its value there is 2 / tau, so that
    losses of different tau cannot be compared."""
    sharp = torch.where(advantage < 0, tau_negative, tau).to(logp.dtype)
    return -advantage * 4 / sharp * torch.sigmoid(sharp * (ratio(logp, old_logp) - 1))


def vespo(
    logp: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    k: float,
    lam: float,
    k_negative: float,
    lam_negative: float,
) -> Tensor:
    """`-sg(W^k exp(lam (1 - W))) A logp`, W the ratio of the whole answer: VESPO (arXiv:2602.10693).

    `k_negative`, `lam_negative` where A < 0. The weight is 1 at W = 1, largest at W = k / lam and vanishes on either side,
    however long the answer. The value depends on the level of logp and is no surrogate: watch the gradient norm. For
    `token_mean`."""
    whole = torch.where(mask, logp - old_logp, 0.0).sum(-1, keepdim=True).detach().clamp(max=LIMIT)
    power = torch.where(advantage < 0, k_negative, k).to(logp.dtype)
    decay = torch.where(advantage < 0, lam_negative, lam).to(logp.dtype)
    return -torch.exp(power * whole - decay * torch.expm1(whole)) * advantage * logp


def dppo(logp: Tensor, behaviour_logp: Tensor, advantage: Tensor, *, low: float, high: float, cap: float) -> Tensor:
    """`-sg(min(rho, cap)) A logp` where `p - q <= high` for A > 0, `q - p <= low` for A < 0, else 0: DPPO (arXiv:2602.04879,
    eq. 13).

    p and q are the token's probabilities under the policy and the sampler, rho = p / q. Total variation of (token, other): a rare
    token, which PPO cuts at once, is never cut, and a sure one is cut before its ratio shows it. Its ratio is the one to the
    sampler, so that no further weight corrects for an engine unlike the trainer.
    """
    moved = (logp.exp() - behaviour_logp.exp()).detach()
    return _kept(logp, behaviour_logp, advantage, (moved <= high, -moved <= low), cap)


def dppo_kl(logp: Tensor, behaviour_logp: Tensor, advantage: Tensor, *, low: float, high: float, cap: float) -> Tensor:
    """`dppo` with `q log(q / p) + (1 - q) log((1 - q) / (1 - p))` for the distance (arXiv:2602.04879, eq. 14).

    A token is dropped where it moved the way that A pushes by more than `high` (A > 0) or `low` (A < 0) nats.
    """
    q, difference = behaviour_logp.detach().exp(), (behaviour_logp - logp).detach()
    rest = torch.log1p(-q.clamp(max=1 - 1e-6)) - torch.log1p(-logp.detach().exp().clamp(max=1 - 1e-6))
    far = q * difference + (1 - q) * rest
    return _kept(logp, behaviour_logp, advantage, ((difference >= 0) | (far <= high), (difference <= 0) | (far <= low)), cap)


def clip_cov(logp: Tensor, old_logp: Tensor, advantage: Tensor, chosen: Tensor, *, low: float, high: float) -> Tensor:
    """`-min(rho A, clip(rho) A)`, and 0 for the `chosen` [N, C], a few tokens of high covariance: Clip-Cov (arXiv:2505.22617,
    eq. 9)."""
    return torch.where(chosen, 0.0, clipped(logp, old_logp, advantage, low=low, high=high))


def kl_cov(logp: Tensor, old_logp: Tensor, advantage: Tensor, chosen: Tensor, *, penalty: float) -> Tensor:
    """`-rho A`, plus `penalty |logp - old_logp|` for the `chosen`, those of the largest covariance: KL-Cov (arXiv:2505.22617,
    eq. 11)."""
    held = (logp - old_logp).clamp(-LIMIT, LIMIT).abs()
    return -ratio(logp, old_logp) * advantage + torch.where(chosen, penalty * held, 0.0)


def covariance(logp: Tensor, advantage: Tensor) -> Tensor:
    """`(A - mean A) (logp - mean logp)` of the tokens `[T]` of a whole step: how much each one lowers the entropy.

    >>> covariance(torch.tensor([-1.0, -3.0]), torch.tensor([1.0, -1.0]))
    tensor([1., 1.])
    """
    return (advantage - advantage.mean()) * (logp - logp.mean())


def largest(values: Tensor, share: float) -> Tensor:
    """Which of `values` [T] are the largest `share` of them, at least one; what is within 1e-6 of the last of them counts too, so
    that ties (the first token of all answers to a prompt) do not hang on the order of sums.

    >>> largest(torch.tensor([1.0, 5.0, 3.0, 2.0]), 0.5)
    tensor([False,  True,  True, False])
    """
    if not values.numel():
        return torch.zeros_like(values, dtype=torch.bool)
    return values >= values.topk(max(1, math.floor(share * values.numel()))).values[-1] - 1e-6


def _kept(logp: Tensor, behaviour_logp: Tensor, advantage: Tensor, near: tuple[Tensor, Tensor], cap: float) -> Tensor:
    keep = torch.where(advantage > 0, near[0], near[1])
    weight = ratio(logp, behaviour_logp).clamp(max=cap).detach()
    return torch.where(keep, -weight * advantage * logp, 0.0)


def mixed_policy(
    logp: Tensor, old_logp: Tensor, advantage: Tensor, given: Tensor, *, low: float, high: float, gain: float
) -> Tensor:
    """`-A p / (p + gain)` on answers of somebody else, p the token's probability; PPO's clip on the policy's own: LUFFY
    (arXiv:2504.14945).

    `given` [N, 1] is True for the former, which have no old log-probs and no clip. Their slope in p is `A gain / (p + gain)^2`:
    rare tokens weigh up to 1 / gain, and a certain one next to nothing.

    >>> row = torch.tensor([[0.1]]).log()
    >>> mixed_policy(row, row, torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool), low=0.2, high=0.2, gain=0.1)
    tensor([[-0.5000]])
    """
    shaped = -advantage * torch.sigmoid(logp - math.log(gain))
    return torch.where(given, shaped, clipped(logp, old_logp, advantage, low=low, high=high))
