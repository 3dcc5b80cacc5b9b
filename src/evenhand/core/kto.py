"""KTO: learning from single answers, each labelled desirable or not (arXiv:2402.01306)."""

from __future__ import annotations

import torch
from torch import Tensor


def kto(
    logp: Tensor,
    ref_logp: Tensor,
    desirable: Tensor,
    z0: Tensor | float,
    *,
    beta: float,
    weight_desirable: float = 1.0,
    weight_undesirable: float = 1.0,
) -> Tensor:
    """`w (1 - sigmoid(beta s (r - z0)))`, r = logp - ref_logp, s = +1 where desirable and -1 elsewhere.

    `logp`, `ref_logp` [B] summed, nats; `desirable` [B] bool; `z0` [] from `z0` over the whole step, held constant here
    (no gradient flows to it). Half its weight while r = z0, where the gradient by logp is largest, w beta / 4; a desirable
    answer is always pushed up, an undesirable one down, and outliers on either side are left alone.
    Choose the weights so that weight_desirable n_desirable / (weight_undesirable n_undesirable) lies in [1, 3/2].

    >>> kto(torch.zeros(2), torch.zeros(2), torch.tensor([True, False]), 0.0, beta=0.1)
    tensor([0.5000, 0.5000])
    """
    reference = z0.detach() if isinstance(z0, Tensor) else z0
    sign = torch.where(desirable, 1.0, -1.0)
    weight = torch.where(desirable, weight_desirable, weight_undesirable)
    return weight * torch.sigmoid(-beta * sign * (logp - ref_logp - reference))


def z0(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """`max(0, mean(logp - ref_logp))` []: KTO's reference point, an estimate of KL(pi, ref) in nats per sequence; detached.

    `logp`, `ref_logp` [M] of *mismatched* pairs (prompt i, an answer to another prompt; see `mismatched`), for the whole
    optimizer step. On matched pairs the estimate is biased upwards. Often 0 early on, by the clamp: log the mean as well.

    >>> z0(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0])), z0(torch.tensor([-1.0]), torch.tensor([0.0]))
    (tensor(1.5000), tensor(0.))
    """
    return (logp - ref_logp).mean().clamp(min=0).detach()


def mismatched(prompt: Tensor) -> Tensor:
    """For each row the index of a row with another prompt, every row used at most once: `[B]` int, -1 where there is none.

    `prompt` [B] int names the prompt of each row. Sorted by prompt and shifted by the size of the largest group, no row meets
    its own group unless that group holds more than half of all rows (its unavoidable remainder gets -1).

    >>> mismatched(torch.tensor([7, 7, 3, 5]))
    tensor([2, 3, 0, 1])
    """
    order = torch.argsort(prompt, stable=True)
    largest = int(torch.unique(prompt, return_counts=True)[1].max())
    partner = torch.empty_like(order)
    partner[order] = torch.roll(order, -largest)
    return torch.where(prompt[partner] == prompt, -1, partner)
