"""Advantages of published methods beside centring, z-scores and ranks: what each takes off a reward, and divides it by.

As in `core.credit`, `reward` is `[P, G]`, NaN = unscored: such a completion gets 0 and enters no statistic. Where a formula looks
across prompts, all of a rollout's prompts must be in the tensor: over a part of them it is another objective.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evenhand.core.credit import FLAT, centre, standardise, whiten
from evenhand.errors import UserError


def against(reward: Tensor, baseline: Tensor) -> Tensor:
    """`A_i = r_i - r(greedy)`: the reward of the prompt's greedy answer taken off. ReMax (arXiv:2310.10505, algorithm 1).

    `reward` [P, G], `baseline` [P, G] or [P, 1] -> [P, G]; 0 where either is NaN. The baseline does not depend on what was
    sampled, so that the gradient is unbiased for any G >= 1; it is 0 where the sample is the greedy answer.

    >>> against(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.25]]))
    tensor([[ 0.7500, -0.2500]])
    """
    return (reward - baseline).nan_to_num(0.0)


def length_weighted(reward: Tensor, length: Tensor) -> Tensor:
    """`A_i = r_i - sum_j n_j r_j / sum_j n_j` within each group. OPO (arXiv:2505.23585, eq. 9).

    The baseline of least variance where a completion's squared score is proportional to its `length` [P, G] in tokens. At equal
    lengths it is `centre`. Strictly on-policy, with the sum over tokens as reduction.

    >>> length_weighted(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 1.0]]))
    tensor([[ 0.2500, -0.7500]])
    """
    scored = ~reward.isnan()
    centred = centre(reward)  # a common shift changes nothing, and keeps an exact 0 where all rewards agree
    weight = torch.where(scored, length.to(centred.dtype), 0.0)
    mean = (weight * centred).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(scored, centred - mean, 0.0)


def whitened_centre(reward: Tensor, length: Tensor) -> Tensor:
    """`(r_i - mean(r) - m) / s`, m and s mean and deviation over every token of the rollout. REINFORCE++-baseline (2501.03262).

    `length` [P, G] in tokens: a long completion counts as often as it has tokens. No deviation per group, so that a prompt on
    which all but one agree is not blown up. Differs from whitening over completions where lengths differ.
    """
    centred, scored = centre(reward), ~reward.isnan()
    weight = torch.where(scored, length.to(centred.dtype), 0.0)
    count = weight.sum()
    mean = (weight * centred).sum() / count.clamp(min=1)
    variance = (weight * (centred - mean).square()).sum() / (count - 1).clamp(min=1)
    return torch.where(scored, (centred - mean) * torch.rsqrt(variance + 1e-8), 0.0)


def valid_share(reward: Tensor) -> Tensor:
    """`A_i = (r_i - mean(r)) B / (B - M)`: B scored completions, M of them in flat groups. GPG (arXiv:2504.02546, eq. 8).

    The factor undoes the flat groups' share of the mean over the rollout. verl counts the rewards that are not 0 instead of the
    groups that are not flat, which differs where a group is all right: rewards 1111, 1000, 0000 have the factor 3 here.
    """
    centred, scored = centre(reward), ~reward.isnan()
    spread = centred.amax(-1, keepdim=True) - centred.amin(-1, keepdim=True)
    live = (scored & (spread >= FLAT)).sum()
    return torch.where(spread < FLAT, 0.0, centred * scored.sum() / live.clamp(min=1))


def batch_deviation(reward: Tensor, *, eps: float = 1e-4) -> Tensor:
    """`A_i = (r_i - mean(r)) / (std of all rewards of the rollout + eps)`. Lite PPO (arXiv:2508.08221), TRL's `batch`.

    The mean is the group's, the sample deviation that of all scored rewards: an easy prompt's one failure does not weigh more
    than others. Equals `standardise` for a single prompt. ScaleRL (arXiv:2510.13786) divides by the deviation of the centred
    rewards, which is smaller where prompts differ in difficulty.
    """
    known = reward[~reward.isnan()]
    spread = known.max() - known.min() if known.numel() else reward.new_zeros(())
    deviation = known.std() if known.numel() > 1 else reward.new_zeros(())
    return torch.where(spread < FLAT, 0.0, centre(reward) / (deviation + eps))


def maximum_likelihood(reward: Tensor) -> Tensor:
    """`A_i = (r_i - mean(r)) / mean(r)`, 0 where the mean is 0. MaxRL (Tajwar et al. 2026), for rewards in [0, 1].

    With 0/1 rewards of probability p the mean gradient is `sum_{k=1}^{G-1} (1 - p)^(k-1)` times that of p: this tends to 1 / p,
    so that many completions climb log p, the likelihood of being right, where `centre` climbs p.

    Raises: UserError for a negative reward, under which the mean may vanish or change the sign.

    >>> maximum_likelihood(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    tensor([[ 3., -1., -1., -1.],
            [ 0.,  0.,  0.,  0.]])
    """
    if bool((reward < 0).any()):
        raise UserError(
            f"a reward is {float(reward.nan_to_num(0.0).min()):g}", where="advantage maxrl",
            why="it divides by the mean reward of the group, which must not be negative",
            fix="use a reward of 0 for wrong and 1 for right, and the KL in the loss",
        )  # fmt: skip
    scored = ~reward.isnan()
    mean = torch.where(scored, reward, 0.0).sum(-1, keepdim=True) / scored.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(mean > 0, centre(reward) / mean, 0.0)


def decoupled(rewards: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """`A = whiten(sum_k w_k z_k)`, z_k the z-score of reward k in its group. GDPO (arXiv:2601.05242, eqs. 4-7).

    `rewards` are K tensors [P, G]. Each reward moves the policy by its weight, whatever its scale, where the z-score of a sum
    moves by the reward of the largest deviation and merges answers that differ in what they are good at. Whitened over the
    completions of the rollout. Of one reward it is `standardise`, whitened. An answer that one reward could not score gets 0.
    """
    scored = torch.stack([~r.isnan() for r in rewards]).all(0)
    masked = [torch.where(scored, r, torch.nan) for r in rewards]
    total = sum((w * standardise(r) for w, r in zip(weights, masked, strict=True)), torch.zeros_like(rewards[0]))
    spread = total.max() - total.min()
    return torch.where(spread < FLAT, 0.0, whiten(total, scored))


def optimal_token(to_go: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """`A_t = G_t - sum_i G_it W_it / sum_i W_it` over the answers of a group that reach token t: the optimal token baseline
    (verl).

    `to_go` G, `weight` W [P, G, C] and `mask` bool of the same shape -> [P, G, C], 0 where masked. W is the squared length of the
    score up to t (see `score_energy`): the baseline of least variance. At equal weights it is the mean over the group; an answer
    that is alone at t gets 0.
    """
    held = torch.where(mask, weight, 0.0)
    baseline = (held * torch.where(mask, to_go, 0.0)).sum(1, keepdim=True) / held.sum(1, keepdim=True).clamp(min=1e-12)
    return torch.where(mask, to_go - baseline, 0.0)


def score_energy(logp: Tensor, collision: Tensor, mask: Tensor) -> Tensor:
    """`W_t = sum_{j <= t} (1 - 2 p_j + sum_v p_jv^2)`: the squared norm of grad log pi in the logits, up to token t.

    `logp` of the sampled tokens and `collision` = log sum_v p_v^2, any shape with tokens last. Between 0 and 2 per token.

    >>> score_energy(torch.tensor([0.5, 1.0]).log(), torch.tensor([0.5, 1.0]).log(), torch.tensor([True, True]))
    tensor([0.5000, 0.5000])
    """
    return torch.where(mask, 1 - 2 * logp.exp() + collision.exp(), 0.0).cumsum(-1)
