"""Numbers in eight bits: blocks of 256, each with its largest number, and 256 levels that lie dense where numbers are small.

Block-wise dynamic quantisation (Dettmers et al., arXiv:2110.02861, section 2.1 and appendix): a number is stored as the level
nearest to its share of the block's largest number, by magnitude and with its sign,

    x ~ scale[block] * LEVELS[code],    |scale[block]| = max |x| over the block.

There is a level at 1 and none at -1: by a scale without its sign a block whose largest number is negative would shrink by 0.7 %
each time, and so a mean that is kept in it (b m + (1 - b) g of a constant g to 93 % of it at b = 0.9, to 59 % at 0.99).

The levels span seven decades. Within the decade that ends at 10^-k they are evenly spaced, half as many with every decade down,
so that the relative error grows as numbers become small beside their neighbours.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 256
DECADES = 7


@cache
def levels(device: torch.device, *, signed: bool) -> Tensor:
    """The 256 levels [256], ascending; unsigned ones lie in [0, 1], signed ones in (-1, 1], with twice the distance.

    >>> signed = levels(torch.device("cpu"), signed=True)
    >>> len(signed.unique()), float(signed.max()), round(float(signed.min()), 6)
    (256, 1.0, -0.992969)
    """
    found = [0.0, 1.0]
    for decade in range(DECADES):
        edges = torch.linspace(0.1, 1.0, (1 if signed else 2) * 2**decade + 1, dtype=torch.float64)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0 ** (decade + 1 - DECADES)
        found += [*middles.tolist(), *((-middles).tolist() if signed else ())]
    return torch.tensor(sorted(found), dtype=torch.float32, device=device)


@cache
def _lookup(device: torch.device, *, signed: bool) -> tuple[Tensor, Tensor]:
    """How a level is found without a search: a first guess by a number's upper 16 bits [65536], and the borders [256].

    Numbers that share these bits lie within 2^-8 of their size, and no two borders do, so that the guess of the smallest of them
    is at most one too small for the others.
    """
    known = levels(device, signed=signed)
    borders = torch.cat([(known[1:] + known[:-1]) / 2, known.new_tensor([torch.inf])])
    upper = torch.arange(2**16, dtype=torch.int32, device=device) << 16
    ends = torch.stack([upper, upper | 0xFFFF]).view(torch.float32)
    return torch.bucketize(ends.amin(0).nan_to_num(), borders, out_int32=True), borders


def blocks(count: int) -> int:
    """How many blocks hold `count` numbers; the last may not be full."""
    return -(-count // BLOCK)


def quantise(x: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes [n] uint8 and scales [blocks(n)] float32 of the numbers x [n] float32 (nonnegative where not `signed`).

    Zeros are kept exactly, and so is the largest number of each block.

    >>> codes, scales = quantise(torch.tensor([0.0, 0.5, 2.0]), signed=False)
    >>> [round(value, 2) for value in dequantise(codes, scales, signed=False).tolist()]
    [0.0, 0.5, 2.0]
    """
    cut = pad(x, (0, -len(x) % BLOCK)).view(-1, BLOCK)
    least, most = cut.amin(1), cut.amax(1)  # `aminmax` is ten times slower
    scales = torch.where(most >= -least, most, least)
    shares = cut / torch.where(scales != 0, scales, 1.0)[:, None]
    shares = shares.view(-1)[: len(x)]
    guesses, borders = _lookup(x.device, signed=signed)
    codes = guesses.index_select(0, (shares.view(torch.int32) >> 16) & 0xFFFF)
    return codes.add_(shares > borders.index_select(0, codes)).to(torch.uint8), scales


def dequantise(codes: Tensor, scales: Tensor, *, signed: bool) -> Tensor:
    """The numbers [n] float32 that codes [n] and scales [blocks(n)] stand for."""
    values = levels(codes.device, signed=signed).index_select(0, codes.int())
    return (pad(values, (0, -len(values) % BLOCK)).view(-1, BLOCK) * scales[:, None]).view(-1)[: len(codes)]
