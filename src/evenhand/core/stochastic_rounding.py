"""Rounding by chance, so that the mean of many roundings is the number itself; float32 to bfloat16 by it."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(count: int, draw: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Integers [count] on the generator's device, all of the dtype's as likely: several of each 64 bits that it draws, in a
    fraction of `randint`'s time."""
    each = 8 // dtype.itemsize
    drawn = torch.empty(-(-count // each), dtype=torch.int64, device=draw.device).random_(-(2**63), None, generator=draw)
    return drawn.view(dtype)[:count]


def to_bfloat16(x: Tensor, draw: torch.Generator) -> Tensor:
    """Each float32 number as one of its two neighbours in bfloat16, the nearer one likelier:

        P(upper) = (x - lower) / (upper - lower),    E[rounded] = x.

    A bfloat16 is the upper half of a float32's bits; a uniform number added to the lower half carries over with just this
    probability. Numbers that bfloat16 holds, infinities and NaN stay as they are. `draw` is a generator on x's device.

    >>> draw = torch.Generator().manual_seed(0)
    >>> to_bfloat16(torch.tensor([1.0, -0.5]), draw)
    tensor([ 1.0000, -0.5000], dtype=torch.bfloat16)
    >>> x = torch.full((4096,), 1 + 2**-9)                     # a quarter of the way from 1 to 1 + 2^-7
    >>> sorted(set(to_bfloat16(x, draw).tolist()))
    [1.0, 1.0078125]
    """
    chance = uniform(x.numel(), draw, torch.int16).int().bitwise_and_(2**16 - 1).view(x.shape)
    chance.mul_(x == x)  # not onto NaN, whose bits would run over; an infinity's lower half is empty
    return chance.add_(x.view(torch.int32)).bitwise_and_(-(2**16)).view(torch.float32).to(torch.bfloat16)
