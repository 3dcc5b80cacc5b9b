"""Reductions as data: a mask becomes (weight, denominator), and a loss is sum(value * weight) / sum of denominators.

The denominator is a count, so it is additive over micro-batches and ranks and known before the first forward pass. Dividing by
its sum over the whole optimizer step makes the loss and its gradient independent of how the step was cut: the mean of
micro-batch means is another objective (lengths {4, 1} with losses {1, 5} per token: token mean 1.8, mean of means 3.0).

A row without a True token counts nowhere: it has weight 0 and adds nothing to the denominator.

>>> import torch
>>> mask = torch.tensor([[True, True, True, True], [True, False, False, False]])
>>> value = torch.tensor([[1.0, 1.0, 1.0, 1.0], [5.0, 0.0, 0.0, 0.0]])
>>> for weight, denominator in (token_mean(mask), sequence_mean(mask), sequence_sum(mask), constant(mask, length=10)):
...     print(round(((value * weight).sum() / denominator).item(), 3))
1.8
3.0
4.5
0.45
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_mean(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Every token counts the same: `sum(mask * value) / sum(mask)`. SFT, PPO, DAPO, CISPO.

    `mask` [N, C] bool, True on tokens that count; returns weight [N, C] and denominator [] (tokens).
    """
    weight = _floats(mask)
    return weight, weight.sum()


def sequence_mean(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Every sequence counts the same: the mean over rows of each row's token mean. GRPO, GSPO.

    `mask` [N, C] bool; returns weight [N, C] (1 / tokens of the row) and denominator [] (rows with a True token).
    """
    weight = _floats(mask)
    tokens = weight.sum(-1, keepdim=True)
    return weight / tokens.clamp(min=1), _rows(mask)


def sequence_sum(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over rows of each row's token sum: one sequence is one action. REINFORCE, RLOO.

    `mask` [N, C] bool; returns weight [N, C] and denominator [] (rows with a True token).
    """
    return _floats(mask), _rows(mask)


def constant(mask: Tensor, length: float) -> tuple[Tensor, Tensor]:
    """The mean over rows of (token sum / `length`), a constant of the run: no row is favoured for its length. Dr.GRPO.

    `mask` [N, C] bool; `length` > 0 in tokens, usually the completion limit, never the padded width of a batch (the objective
    would change with padding). Returns weight [N, C] and denominator [] (rows with a True token, times `length`).
    """
    if not length > 0:
        raise ValueError(f"length must be positive, got {length}")
    return _floats(mask), _rows(mask) * length


def _floats(mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError(f"a mask is bool [N, C], got {mask.dtype} {list(mask.shape)}")
    return mask.to(torch.get_default_dtype())


def _rows(mask: Tensor) -> Tensor:
    return mask.any(-1).sum().to(torch.get_default_dtype())
