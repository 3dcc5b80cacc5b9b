"""What surrounds a policy gradient: rewards per token, length penalties, the KL coefficient, sampler-trainer correction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evenhand.core.kl import k1


def token_rewards(
    score: Tensor, old_logp: Tensor, ref_logp: Tensor, mask: Tensor, *, beta: float, estimate: Tensor | None = None
) -> Tensor:
    """`-beta (old_logp - ref_logp)` at every token that counts, plus `score` at the last of them: KL in the reward, PPO's way.

    `score` [N], the rest `[N, C]`, `mask` bool; returns `[N, C]`, 0 where masked. k1 is the estimator whose detached value
    gives the gradient of KL(pi, ref); another one [N, C] may stand in as `estimate`. A row's sum is RLOO's shaped reward,
    score - beta * (sampled KL in nats per sequence).

    >>> mask = torch.tensor([[True, True, False]])
    >>> token_rewards(torch.tensor([1.0]), torch.tensor([[0.0, -1.0, 0.0]]), torch.tensor([[-1.0, -1.0, 0.0]]), mask, beta=0.1)
    tensor([[-0.1000,  1.0000,  0.0000]])
    """
    place = torch.arange(mask.shape[-1], device=mask.device)
    last = torch.where(mask, place, -1).amax(-1, keepdim=True)
    penalty = torch.where(mask, beta * (k1(old_logp, ref_logp) if estimate is None else estimate), 0.0)
    return torch.where(place == last, score.unsqueeze(-1), 0.0) - penalty


def overlong_penalty(length: Tensor, *, limit: float, buffer: float, factor: float = 1.0) -> Tensor:
    """DAPO's soft length penalty (arXiv:2503.14476, eq. 13), in [-factor, 0]: added to the reward of a completion.

    0 up to `limit - buffer` tokens, then linear down to `-factor` at `limit`. `length` in tokens, any shape.

    >>> overlong_penalty(torch.tensor([16384.0, 18432.0, 20480.0, 30000.0]), limit=20480, buffer=4096)
    tensor([ 0.0000, -0.5000, -1.0000, -1.0000])
    """
    return factor * ((limit - buffer - length) / buffer).clamp(-1.0, 0.0)


def adaptive_kl(coefficient: float, kl: float, *, target: float, horizon: float, episodes: int) -> float:
    """`c (1 + clip(kl / target - 1, +-0.2) * episodes / horizon)`: the next KL coefficient (arXiv:1909.08593, section 2.2).

    `kl` is the batch mean of per-*sequence* sums, in nats, as is `target`; `episodes` completions were seen since the last call.

    >>> round(adaptive_kl(0.1, 12.0, target=6.0, horizon=1000, episodes=100), 6)
    0.102
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * episodes / horizon)


def token_importance(old_logp: Tensor, behaviour_logp: Tensor, *, cap: float) -> Tensor:
    """`sg(min(exp(old_logp - behaviour_logp), cap))` [N, C]: truncated importance weight per token, for engine mismatch.

    Multiplies the policy term only, never the KL. The default choice (cap 2): its bias does not grow with length.
    """
    return torch.exp((old_logp - behaviour_logp).clamp(max=math.log(cap))).detach()


def sequence_importance(old_logp: Tensor, behaviour_logp: Tensor, mask: Tensor, *, cap: float) -> Tensor:
    """`sg(min(exp(sum_t (old_logp - behaviour_logp)), cap))` [N]: truncated importance weight of whole completions.

    Unbiased but for the truncation, yet its truncated mean collapses with length: watch it, and prefer `token_importance`.
    """
    total = torch.where(mask, old_logp - behaviour_logp, 0.0).sum(-1)
    return torch.exp(total.clamp(max=math.log(cap))).detach()


def sequence_agreement(old_logp: Tensor, behaviour_logp: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """`[N]` bool: the geometric mean of the token ratios lies in [low, high], say [0.99, 1.01]. For rejection, not a weight."""
    total = torch.where(mask, old_logp - behaviour_logp, 0.0).sum(-1)
    mean = total / mask.sum(-1).clamp(min=1)
    return (mean >= math.log(low)) & (mean <= math.log(high))
