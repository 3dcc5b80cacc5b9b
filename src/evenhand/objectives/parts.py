"""Small tensor helpers shared by the objectives: sums and means over a completion, weights, metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from evenhand.types import Batch, Weighted


def present(value: Tensor | None) -> Tensor:
    """A field that the objective declared in `reads` or `needs`; its absence is a fault of whoever made the batch."""
    if value is None:
        raise ValueError("the batch or the model output lacks a field that the objective declared")
    return value


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over counted tokens, [N, C] -> [N]. `where`, not a product: -inf * 0 is NaN."""
    return torch.where(mask, values, values.new_zeros(())).sum(-1)


def lengths(mask: Tensor) -> Tensor:
    """Counted tokens per completion, [N, C] -> [N], at least 1."""
    return mask.sum(-1).clamp(min=1)


def row_weight(batch: Batch, like: Tensor) -> Tensor:
    """The data weight per completion [N], 1 when none is given; 0 for a completion without a counted token."""
    counts = batch.completion_mask.any(-1).to(like.dtype)
    return counts if batch.weight is None else counts * batch.weight.to(like.dtype)


def scored_weight(batch: Batch) -> Tensor:
    """`row_weight` [N] of the completions that have a score, 0 of the others."""
    score = present(batch.score)
    return row_weight(batch, score) * ~score.isnan()


def owners(batch: Batch) -> Tensor:
    """The prompt of every completion [N]."""
    return torch.tensor(batch.layout.owner, device=batch.completion_mask.device)


def counted(batch: Batch) -> Tensor:
    """Tokens that count [N, C] in completions that weigh something."""
    return batch.completion_mask if batch.weight is None else batch.completion_mask & (batch.weight != 0)[:, None]


def metric(values: Tensor, weight: Tensor | None = None) -> Weighted:
    """A detached additive metric: weighted sum and weight."""
    values = values.detach().float()
    weight = torch.ones_like(values) if weight is None else weight.detach().float().expand_as(values)
    return Weighted((values * weight).sum(), weight.sum())


def order_metrics(gap: Tensor, weight: Tensor) -> dict[str, Weighted]:
    """Of gaps between chosen and rejected: the share above 0, a tie counting a half (`accuracy`), and their mean (`margin`)."""
    return {"accuracy": metric((gap > 0).float() + 0.5 * (gap == 0).float(), weight), "margin": metric(gap, weight)}
