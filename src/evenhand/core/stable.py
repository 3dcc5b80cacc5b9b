"""Exponentials that stay finite in single precision, with a gradient that keeps its sign."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LIMIT = 20.0
"""Largest exponent, in nats: e^20 = 4.9e8 keeps fp32 sums finite; a token this far from its reference is already an outlier."""


def exp(x: Tensor) -> Tensor:
    """`e^x`, continued beyond x = 20 as its tangent. A clamp there would end the gradient, the exponential itself fp32.

    >>> exp(torch.tensor([0.0, 21.0])) / math.exp(20.0)
    tensor([2.0612e-09, 2.0000e+00])
    """
    return torch.exp(x.clamp(max=LIMIT)) + math.exp(LIMIT) * torch.relu(x - LIMIT)


def expm1(x: Tensor) -> Tensor:
    """`e^x - 1`, exact near 0, continued beyond x = 20 as its tangent."""
    return torch.expm1(x.clamp(max=LIMIT)) + math.exp(LIMIT) * torch.relu(x - LIMIT)
