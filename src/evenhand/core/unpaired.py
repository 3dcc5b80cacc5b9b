"""Losses of single answers, each labelled desirable or not, on their implicit rewards."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def bco(reward: Tensor, desirable: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    """`nls(+-(reward - shift))`: binary classifier optimisation (arXiv:2404.04656), + where desirable.

    `reward` [B] = beta (logp - ref_logp); `desirable` [B] bool; `shift` [], held constant: the mean reward of all answers so far.

    >>> bco(torch.zeros(2), torch.tensor([True, False]))
    tensor([0.6931, 0.6931])
    """
    return -logsigmoid(_sign(desirable) * (reward - shift))


def apo_zero(reward: Tensor, desirable: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    """`1 - s(+-(reward - shift))`: APO-zero of single answers (arXiv:2408.06266). `kto` whose reference point is the shift."""
    return torch.sigmoid(-_sign(desirable) * (reward - shift))


def _sign(desirable: Tensor) -> Tensor:
    return torch.where(desirable, 1.0, -1.0)
