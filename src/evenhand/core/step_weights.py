"""Statistics of one whole optimizer step that a loss of pairs is steered by. Every input and output is without gradient.

`weight` [B] is how much each pair counts; means are weighted by it. A moving average starts at its first value: started at 0, as
in public code, the first step of a run from the reference, where every margin is 0, would divide by a deviation of 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-6
"""The smallest deviation that is divided by, in nats."""


def softmin_weights(loss: Tensor, weight: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """`-t log sum w exp(-l / t) / sum w` [] of losses [B], and its gradient by each loss over w / sum w: [B], mean 1.

    Dr.DPO (arXiv:2407.07880): t -> infinity weighs pairs alike, t -> 0 keeps only the *easiest* one. A pair that counts never
    weighs exactly 0, where exp underflows: that would mean that it was left out.

    >>> weights = softmin_weights(torch.tensor([0.1, 1.0, 5.0]), torch.ones(3), temperature=0.5)[1] / 3
    >>> [round(float(w), 3) for w in weights]
    [0.858, 0.142, 0.0]
    """
    logits = torch.where(weight > 0, -loss / temperature + weight.log(), -torch.inf)
    value = -temperature * (logits.logsumexp(0) - weight.sum().log())
    gradient = (logits.softmax(0) * weight.sum() / weight).clamp(min=torch.finfo(loss.dtype).tiny)
    return value, torch.where(weight > 0, gradient, 0.0)


def moments(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean [] and standard deviation [] (ddof 0) of `values` [B]."""
    mean = (weight * values).sum() / weight.sum()
    return mean, ((weight * (values - mean).square()).sum() / weight.sum()).sqrt()


def moving(new: Tensor, known: Tensor | None, *, decay: float) -> Tensor:
    """`decay * known + (1 - decay) * new`; the new value itself where nothing is known yet."""
    return new if known is None else decay * known + (1 - decay) * new


def kept_near_mean(margin: Tensor, uniform: Tensor, *, centre: Tensor, deviation: Tensor, drop: float) -> Tensor:
    """Which pairs are kept [B] bool: a share 1 - `drop`, drawn by exp(-((margin - centre) / deviation)^2 / 2).

    Beta-DPO's filter of outliers (arXiv:2407.08639). `uniform` [B] in (0, 1): the draw is that of the largest log p + Gumbel.
    """
    log_p = -0.5 * ((margin - centre) / deviation.clamp(min=LEAST)).square()
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7)))
    count = max(1, round((1 - drop) * len(margin)))
    kept = torch.zeros_like(margin, dtype=torch.bool)
    return kept.index_fill(0, (log_p + gumbel).topk(count).indices, True)
