"""Weights for tokens that a sampler unlike the trainer wrote: another kernel, another precision, older weights, cut tails.

With `w_t = exp(old_logp - behaviour_logp)`, the trainer's probability of a token over the sampler's, and W its product over an
answer. All are constants `[N, C]` or `[N, 1]` and multiply the policy's term alone, never a KL or an entropy. `high` is the
largest weight, `low` the least that is kept. A dropped token stays in the denominators."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evenhand.core.kl_control import sequence_agreement, sequence_importance, token_importance


def truncate(old_logp: Tensor, behaviour_logp: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """`min(w_t, high)`: truncated importance sampling per token (TIS, Yao et al. 2025). The bias does not grow with length."""
    return token_importance(old_logp, behaviour_logp, cap=high)


def mask_tokens(old_logp: Tensor, behaviour_logp: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """`w_t 1[low <= w_t <= high]`: masked importance sampling (MIS, IcePop, arXiv:2510.18855). 0.5 and 5 are usual."""
    return _within(_token(old_logp, behaviour_logp), low, high)


def truncate_sequence(old_logp: Tensor, behaviour_logp: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """`min(W, high)` [N, 1]: unbiased but for the truncation, and nearly all answers are cut once they are long."""
    return sequence_importance(old_logp, behaviour_logp, mask, cap=high).unsqueeze(-1)


def mask_sequences(old_logp: Tensor, behaviour_logp: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """`W 1[low <= W <= high]` [N, 1]: an answer that the trainer would rather not have written is left out. TRL's default, 3."""
    return _within(
        _token(torch.where(mask, old_logp - behaviour_logp, 0.0).sum(-1, keepdim=True), old_logp.new_zeros(())), low, high
    )


def mask_geometric(old_logp: Tensor, behaviour_logp: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """`w_t 1[low <= W^(1/n) <= high]`: answers kept by the geometric mean of their ratios, tokens weighed by their own.

    Useful bounds are near 1, say 0.99 and 1.01: they do not depend on the length.
    """
    kept = sequence_agreement(old_logp, behaviour_logp, mask, low=max(low, 1e-30), high=high)
    return torch.where(kept.unsqueeze(-1), _token(old_logp, behaviour_logp), 0.0)


def off_policy(logp: Tensor, behaviour_logp: Tensor, advantage: Tensor, mask: Tensor, *, threshold: float) -> Tensor:
    """`1 - 1[A < 0 and mean_t (behaviour_logp - logp) > threshold]` [N, 1]: DeepSeek-V3.2 (arXiv:2512.02556, eq. 9).

    A bad answer that the policy of now has left anyway is not pushed further down; a good one is learned from whoever wrote it.
    With an advantage per token their mean decides.

    >>> logp, told = torch.tensor([[-3.0], [-3.0]]), torch.tensor([[-1.0], [-1.0]])
    >>> off_policy(logp, told, torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1, dtype=torch.bool), threshold=0.5)
    tensor([[0.],
            [1.]])
    """
    count = mask.sum(-1, keepdim=True).clamp(min=1)
    left = torch.where(mask, behaviour_logp - logp.detach(), 0.0).sum(-1, keepdim=True) / count
    mean = torch.where(mask, advantage.expand_as(mask), 0.0).sum(-1, keepdim=True)
    return 1.0 - ((mean < 0) & (left > threshold)).to(logp.dtype)


def effective_share(weight: Tensor) -> Tensor:
    """`(sum w)^2 / (n sum w^2)` in (0, 1]: the share of n weighted samples that a mean of as many equal ones would be worth
    (Kish 1965; Kong 1992). `weight` of any shape, non-negative, not all 0; a share without a unit.

    >>> effective_share(torch.tensor([1.0, 1.0, 1.0, 1.0])), effective_share(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    (tensor(1.), tensor(0.2500))
    """
    return weight.sum() ** 2 / (weight.numel() * weight.square().sum())


CORRECTIONS = {
    "truncate": truncate, "mask_tokens": mask_tokens, "truncate_sequence": truncate_sequence, "mask_sequences": mask_sequences,
    "mask_geometric": mask_geometric,
}  # fmt: skip
TRUNCATIONS = ("truncate", "truncate_sequence")
"""Those that have a largest weight and no least one."""
PER_SEQUENCE = ("truncate_sequence", "mask_sequences")
"""Those that have one weight for a whole answer."""


def _token(old_logp: Tensor, behaviour_logp: Tensor) -> Tensor:
    return torch.exp((old_logp - behaviour_logp).clamp(-math.inf, 80.0)).detach()


def _within(weight: Tensor, low: float, high: float) -> Tensor:
    return torch.where((weight >= low) & (weight <= high), weight, 0.0)
