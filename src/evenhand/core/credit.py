"""Credit: from rewards to an advantage per completion or token (here), or to pairs and bests (`core.selection`).

`reward` is `[P, G]`: P prompts, G completions of each; NaN = unscored (or padding of a smaller group). An unscored completion
gets advantage 0 and enters no statistic; a group with fewer than two scored completions gets 0 throughout. Every function is
computed over complete groups; its result carries no gradient, because a reward does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evenhand.core.selection import all_pairs, best_of, best_vs_worst

__all__ = [
    "all_pairs",
    "batch_baseline",
    "best_of",
    "best_vs_worst",
    "centre",
    "fixed_baseline",
    "gae",
    "leave_one_out",
    "rank",
    "running_baseline",
    "standardise",
    "whiten",
]

FLAT = 1e-6
"""A group whose rewards span less than this is flat: dividing its rounding error by its standard deviation would be noise."""


def centre(reward: Tensor) -> Tensor:
    """`A_i = r_i - mean(r)` within each group. Dr.GRPO (arXiv:2503.20783).

    `reward` [P, G] -> [P, G]; sums to 0 per group; ignores a common shift. Equals (G - 1) / G times `leave_one_out`.

    >>> centre(torch.tensor([[1.0, 0.0, 2.0, float("nan")]]))
    tensor([[ 0., -1.,  1.,  0.]])
    """
    scored = ~reward.isnan()
    # Shifting by the group's own minimum first leaves an exact 0 where all rewards agree, and keeps digits of large rewards.
    lowest = torch.where(scored, reward, torch.inf).amin(-1, keepdim=True)
    shifted = torch.where(scored, reward - lowest, 0.0)
    mean = shifted.sum(-1, keepdim=True) / scored.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(scored, shifted - mean, 0.0)


def standardise(reward: Tensor, *, ddof: int = 1, eps: float = 1e-4) -> Tensor:
    """`A_i = (r_i - mean(r)) / (std(r) + eps)` within each group. GRPO (arXiv:2402.03300, section 4.1).

    `reward` [P, G] -> [P, G]. `ddof` 1 is the sample deviation (two completions: +-1/sqrt 2), 0 the population's (+-1).
    Exactly 0 where the rewards of a group span less than 1e-6. Unchanged by r -> a r + b, a > 0, up to `eps`.

    >>> standardise(torch.tensor([[0.0, 1.0], [3.0, 3.0]]), eps=0.0)
    tensor([[-0.7071,  0.7071],
            [ 0.0000,  0.0000]])
    """
    centred = centre(reward)
    spread = centred.amax(-1, keepdim=True) - centred.amin(-1, keepdim=True)
    count = (~reward.isnan()).sum(-1, keepdim=True)
    deviation = (centred.square().sum(-1, keepdim=True) / (count - ddof).clamp(min=1)).sqrt()
    return torch.where(spread < FLAT, 0.0, centred / (deviation + eps))


def leave_one_out(reward: Tensor) -> Tensor:
    """`A_i = r_i - mean_{j != i}(r_j) = G / (G - 1) * (r_i - mean(r))`. RLOO (arXiv:2402.14740).

    `reward` [P, G] -> [P, G]; the baseline does not depend on completion i, so the policy gradient stays unbiased.

    >>> leave_one_out(torch.tensor([[1.0, 0.0, 2.0]]))
    tensor([[ 0.0000, -1.5000,  1.5000]])
    """
    count = (~reward.isnan()).sum(-1, keepdim=True)
    return centre(reward) * (count / (count - 1).clamp(min=1))


def rank(reward: Tensor) -> Tensor:
    """`A_i = mean_{j != i} sign(r_i - r_j)`: beaten minus beating completions, over all others.

    `reward` [P, G] -> [P, G] in [-1, 1]. Without ties it is `2 (rank_i - 1) / (G - 1) - 1` (rank 1 = worst); tied
    completions share one value, so a flat group gets 0. Unchanged by any increasing map of the rewards.

    >>> rank(torch.tensor([[1.0, 1.0, 0.0, 2.0]]))
    tensor([[ 0.,  0., -1.,  1.]])
    """
    mine, other = reward.unsqueeze(-1), reward.unsqueeze(-2)
    wins = (mine > other).to(reward.dtype) - (mine < other).to(reward.dtype)  # 0 wherever a NaN takes part
    others = (~reward.isnan()).sum(-1, keepdim=True) - 1
    return wins.sum(-1) / others.clamp(min=1)


def batch_baseline(reward: Tensor) -> Tensor:
    """`A_i = r_i - mean of every other scored reward in the batch`, whichever prompt it belongs to. REINFORCE.

    `reward` of any shape -> the same shape. A batch with fewer than two scored completions gets 0.
    """
    return leave_one_out(reward.reshape(1, -1)).reshape(reward.shape)


def fixed_baseline(reward: Tensor, *, baseline: float = 0.0) -> Tensor:
    """`A_i = r_i - baseline`, the same constant for all; 0 where unscored. Plain REINFORCE, RAFT's indicator, TOPR.

    `reward` of any shape -> the same shape. For rewards +-1 keep |baseline| < 1, so that the sign of A stays that of the reward.

    >>> fixed_baseline(torch.tensor([1.0, -1.0, float("nan")]), baseline=0.5)
    tensor([ 0.5000, -1.5000,  0.0000])
    """
    return torch.where(reward.isnan(), 0.0, reward - baseline)


def running_baseline(reward: Tensor, baseline: Tensor, *, decay: float = 0.9) -> tuple[Tensor, Tensor]:
    """`A_i = r_i - b`, and the next `b' = decay * b + (1 - decay) * mean(r)`. REINFORCE with a moving average.

    `reward` of any shape; `baseline` [] is the state before this batch, NaN before the first one (which then is its own
    `batch_baseline`, and b' its mean). Returns the advantage and b'. Using b, not b', keeps the gradient unbiased.

    >>> advantage, state = running_baseline(torch.tensor([1.0, 3.0]), torch.tensor(1.0), decay=0.5)
    >>> advantage, state
    (tensor([0., 2.]), tensor(1.5000))
    """
    mean = reward.nanmean()
    started = ~baseline.isnan()
    advantage = torch.where(started, torch.where(reward.isnan(), 0.0, reward - baseline), batch_baseline(reward))
    moved = torch.where(started, decay * baseline + (1 - decay) * mean, mean)
    return advantage, torch.where(mean.isnan(), baseline, moved)


def gae(
    reward: Tensor, value: Tensor, mask: Tensor, *, gamma: float, lam: float | Tensor, bootstrap: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (arXiv:1506.02438, eq. 16) over the tokens that count.

    `delta_t = r_t + gamma V_{t+1} - V_t`, `A_t = delta_t + gamma lam A_{t+1}`, `return_t = A_t + V_t`.
    `reward`, `value` [N, C]; `value[i, t]` is the value of the state *before* token t. `mask` [N, C] bool: a masked token (a
    tool's answer) is stepped over, the next counted token follows directly. After the last counted token the value is 0; in
    rows where `bootstrap` [N] (bool) is True, a completion cut by the length limit, it is the last value read.
    Returns advantage and return [N, C], 0 where masked. lam = 1: reward-to-go minus value; lam = 0: one-step differences; a
    tensor [N] has one per row.

    >>> ones = torch.ones(1, 3)
    >>> gae(torch.tensor([[0.0, 0.0, 1.0]]), 0 * ones, ones.bool(), gamma=1.0, lam=0.5)[0]
    tensor([[0.2500, 0.5000, 1.0000]])
    """
    following = _last_value(value, mask, bootstrap)
    ahead = torch.zeros_like(following)
    advantage = torch.zeros_like(value)
    for t in reversed(range(value.shape[-1])):
        counted = mask[:, t]
        delta = reward[:, t] + gamma * following - value[:, t]
        ahead = torch.where(counted, delta + gamma * lam * ahead, ahead)
        following = torch.where(counted, value[:, t], following)
        advantage[:, t] = torch.where(counted, ahead, 0.0)
    return advantage, torch.where(mask, advantage + value, 0.0)


def whiten(advantage: Tensor, mask: Tensor) -> Tensor:
    """`(A - mean) / sqrt(var + 1e-8)` over every token that counts: mean 0, unbiased variance 1; 0 where masked. PPO.

    `advantage`, `mask` of one shape, holding the whole rollout: whitening a micro-batch is a different objective.
    """
    count = mask.sum()
    mean = torch.where(mask, advantage, 0.0).sum() / count.clamp(min=1)
    centred = torch.where(mask, advantage - mean, 0.0)
    variance = centred.square().sum() / (count - 1).clamp(min=1)
    return centred * torch.rsqrt(variance + 1e-8)


def _last_value(value: Tensor, mask: Tensor, bootstrap: Tensor | None) -> Tensor:
    zero = value.new_zeros(value.shape[0])
    if bootstrap is None:
        return zero
    if bootstrap.dtype != torch.bool:
        raise ValueError(f"bootstrap marks rows and is bool [N], got {bootstrap.dtype}")
    place = torch.arange(mask.shape[-1], device=mask.device)
    last = torch.where(mask, place, 0).amax(-1, keepdim=True)
    return torch.where(bootstrap, value.gather(-1, last).squeeze(-1), zero)
