"""Policy-gradient losses per token `[N, C]` or per sequence `[N]`, unreduced; lower is better.

`logp` is the current policy's, `old_logp` the trainer's at the rollout's weights, `behaviour_logp` the engine's as sampled,
all in nats. `advantage` is `[N]` or `[N, 1]` (one per sequence) or `[N, C]`, higher is better, a constant. Ratios are
`exp(logp - old_logp)` with the exponent held within +-20. Masked tokens hold any finite value: `core.reduce` gives them weight 0.

On-policy (ratio 1) the gradient of `clipped`, `gspo`, `cispo` and `reinforce` is the same, `-advantage * grad logp`, once their
reductions agree; they differ when one rollout serves several updates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LIMIT = 20.0
"""Largest exponent of a ratio, in nats. e^20 = 4.9e8 is far outside any clip range, and finite in fp32 sums."""


def ratio(logp: Tensor, old_logp: Tensor) -> Tensor:
    """`exp(logp - old_logp)`, the importance ratio; any shape."""
    return torch.exp((logp - old_logp).clamp(-LIMIT, LIMIT))


def sequence_log_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    """`(1/n) sum_t (logp - old_logp)` over the n tokens that count: log of GSPO's length-normalised sequence ratio.

    `[N, C]` and `mask` bool -> `[N]`; 0 in a row without tokens. The geometric mean of the token ratios, not their product.

    >>> mask = torch.tensor([[True, True, False]])
    >>> sequence_log_ratio(torch.tensor([[1.0, 2.0, 9.0]]), torch.zeros(1, 3), mask)
    tensor([1.5000])
    """
    return _masked_sum(logp - old_logp, mask) / mask.sum(-1).clamp(min=1)


def reinforce(logp: Tensor, advantage: Tensor) -> Tensor:
    """`-advantage * logp` [N, C]: the score-function gradient (Williams, 1992). REINFORCE and RLOO with `sequence_sum`."""
    return -_per_token(advantage, logp) * logp


def clipped(logp: Tensor, old_logp: Tensor, advantage: Tensor, *, low: float, high: float) -> Tensor:
    """`-min(rho A, clip(rho, 1 - low, 1 + high) A)` [N, C]: PPO (arXiv:1707.06347, eq. 7), GRPO, Dr.GRPO; DAPO at high > low.

    The gradient is exactly 0 where A > 0 and rho > 1 + high, or A < 0 and rho < 1 - low. At rho = 1 it is that of `reinforce`.

    >>> one = torch.ones(1, 1)
    >>> clipped(one * 2, one * 1, one, low=0.2, high=0.2)
    tensor([[-1.2000]])
    """
    return -_clip_objective(ratio(logp, old_logp), _per_token(advantage, logp), low, high)


def dual_clipped(logp: Tensor, old_logp: Tensor, advantage: Tensor, *, low: float, high: float, cap: float) -> Tensor:
    """`clipped`, with the objective of a negative advantage held above `cap * A`, cap > 1 (arXiv:1912.09729).

    A token that became far likelier than when it was sampled (rho > cap, A < 0) then has no gradient. `clipped` at cap = inf.
    """
    if not cap > 1:
        raise ValueError(f"cap bounds the ratio from above and must exceed 1, got {cap}")
    advantage = _per_token(advantage, logp)
    objective = _clip_objective(ratio(logp, old_logp), advantage, low, high)
    return -torch.where(advantage < 0, torch.maximum(objective, cap * advantage), objective)


def gspo(logp: Tensor, old_logp: Tensor, advantage: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """`-min(s A, clip(s, 1 - low, 1 + high) A)` with `s = exp(sequence_log_ratio)`: GSPO (arXiv:2507.18071, eq. 5).

    One value per sequence, repeated over its tokens to `[N, C]` so that every reduction applies; GSPO's is `sequence_mean`.
    Gradient through that mean: `-s A (1/n) sum grad logp` inside the clip. `clipped` when every sequence has one token.
    Useful clip ranges are small (3e-4, 4e-4), because s is a geometric mean; its log is held below 10.
    """
    log_ratio = sequence_log_ratio(logp, old_logp, mask).clamp(max=10.0)
    sequence = torch.exp(log_ratio).unsqueeze(-1)
    return -_clip_objective(sequence, _per_token(advantage, logp), low, high).expand_as(logp)


def sequence_clipped(logp: Tensor, old_logp: Tensor, advantage: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """`-min(rho A, clip(rho, 1 - low, 1 + high) A)` [N] with rho the product of all token ratios: RLOO over several epochs.

    `advantage` [N]. Long completions leave the clip range at once: prefer one epoch and `reinforce`.
    """
    rho = torch.exp(_masked_sum(logp - old_logp, mask).clamp(-LIMIT, LIMIT))
    return -_clip_objective(rho, advantage.reshape(rho.shape), low, high)


def cispo(logp: Tensor, old_logp: Tensor, advantage: Tensor, *, low: float, high: float) -> Tensor:
    """`-sg(clip(rho, 1 - low, 1 + high)) A logp` [N, C]: a clipped, constant importance weight (arXiv:2506.13585).

    No token ever loses its gradient. The value depends on the level of logp and is no surrogate: watch the gradient norm.
    """
    weight = ratio(logp, old_logp).clamp(1 - low, 1 + high).detach()
    return weight * reinforce(logp, advantage)


def topr(
    logp_sum: Tensor,
    behaviour_logp_sum: Tensor,
    advantage: Tensor,
    *,
    low: float = 0.0,
    high: float = 1.0,
    good_low: float = 1.0,
    good_high: float = 1.0,
) -> Tensor:
    """`-sg(alpha) A logp_sum` [N], alpha = 1 if A >= 0, else min(1, exp(logp_sum - behaviour_logp_sum)) (arXiv:2503.14286).

    Tapered off-policy REINFORCE: good answers are imitated wherever they came from; bad ones are pushed down only while the
    policy still gives them. Underflow of alpha to 0 is the intended behaviour. `advantage` = reward - constant baseline.
    `low` and `high` hold the ratio of bad answers, `good_low` and `good_high` that of good ones (the paper's limits a and b):
    all at 1 is REINFORCE as if the policy had written them, 0 and 1 for both is truncated importance sampling.

    >>> logp, behaviour, bad = torch.tensor([-3.0]), torch.tensor([-1.0]), torch.tensor([-1.0])
    >>> topr(logp, behaviour, bad), topr(logp, behaviour, bad, low=0.5)
    (tensor([-0.4060]), tensor([-1.5000]))
    """
    gap = logp_sum - behaviour_logp_sum
    taper = _held(gap, low, high)
    alpha = torch.where(advantage >= 0, _held(gap, good_low, good_high), taper)
    return -alpha * advantage * logp_sum


def _held(log_ratio: Tensor, low: float, high: float) -> Tensor:
    """A ratio between two limits, a constant; underflow to 0 included."""
    return torch.exp(log_ratio.clamp(max=math.log(high))).clamp(min=low).detach()


def value_loss(value: Tensor, old_value: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """`max((V - R)^2, (V_c - R)^2) / 2`, V_c = old_value + clip(V - old_value, +-clip); any shape. Plain squares at clip = inf.

    >>> value_loss(torch.tensor(2.0), torch.tensor(0.0), torch.tensor(2.0), clip=0.5)
    tensor(1.1250)
    """
    near = old_value + (value - old_value).clamp(-clip, clip)
    return 0.5 * torch.maximum((value - returns).square(), (near - returns).square())


def _clip_objective(rho: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    return torch.minimum(rho * advantage, rho.clamp(1 - low, 1 + high) * advantage)


def _per_token(advantage: Tensor, logp: Tensor) -> Tensor:
    """`[N]` becomes `[N, 1]`: left alone it would broadcast over tokens whenever N == C."""
    return advantage.unsqueeze(-1) if advantage.ndim < logp.ndim else advantage


def _masked_sum(value: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, value, 0.0).sum(-1)
