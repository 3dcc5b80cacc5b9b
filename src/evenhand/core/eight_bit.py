"""Numbers in eight bits: blocks of 256, each with its largest number, and 256 levels that lie dense where numbers are small.

Block-wise dynamic quantisation (Dettmers et al., arXiv:2110.02861, section 2.1 and appendix): a number is stored as the level
nearest to its share of the block's largest number (or one of the two around it, by chance), by magnitude and with its sign,

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

from evenhand.core.stochastic_rounding import uniform

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
    """How a code is found without a search: a first guess by a number's upper 16 bits [65536], and the numbers [256] from which
    on the next code is meant: the middles between signed levels, the unsigned levels themselves.

    Numbers that share these bits lie within 2^-8 of their size, and no two borders do, so that the guess of the smallest of them
    is at most one too small for the others.
    """
    known = levels(device, signed=signed)
    borders = torch.cat([(known[1:] + known[:-1]) / 2 if signed else known[1:], known.new_tensor([torch.inf])])
    upper = torch.arange(2**16, dtype=torch.int32, device=device) << 16
    ends = torch.stack([upper, upper | 0xFFFF]).view(torch.float32)
    return torch.bucketize(ends.amin(0).nan_to_num(), borders, right=not signed, out_int32=True), borders


@cache
def _squares(device: torch.device) -> tuple[Tensor, Tensor]:
    """Of the unsigned levels, squared: each [256], and 256 over how far the next is from it [256], 0 at the last."""
    squares = levels(device, signed=False).square()
    return squares, torch.cat([256 / squares.diff(), squares.new_zeros(1)])


def blocks(count: int) -> int:
    """How many blocks hold `count` numbers; the last may not be full."""
    return -(-count // BLOCK)


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [n] uint8 of the nearest signed levels and scales [blocks(n)] float32 of the numbers x [n] float32.

    Zeros are kept exactly, and so is the largest number of each block.

    >>> codes, scales = quantise(torch.tensor([0.0, -0.5, 2.0]))
    >>> [round(value, 2) for value in dequantise(codes, scales, signed=True).tolist()]
    [0.0, -0.5, 2.0]
    """
    cut = _cut(x)
    least, most = cut.amin(1), cut.amax(1)  # `aminmax` is ten times slower
    scales = torch.where(most >= -least, most, least)
    return _codes(_shares(cut, scales, len(x)), signed=True).to(torch.uint8), scales


def quantise_roots(x: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Codes [n] uint8 of unsigned levels and scales [blocks(n)] float32 of the numbers x [n] float32, all >= 0, whose *squares*
    are rounded by chance to those of the levels on either side,

        P(upper) = (x^2 - lower^2) / (upper^2 - lower^2),    E[rounded^2] = x^2,

    so that a mean square keeps, on average, what an update changes it by. One that forgets a thousandth in each would stay where
    it is, were it rounded to the nearest. The price is a spread of x around it: half of the root of how far the next level is,
    as a share of x (4 % near the largest number of a block, 13 % at a tenth of it).

    Zeros are kept exactly, and so is the largest number of each block. `draw` is a generator on x's device.

    >>> x = torch.tensor([1.0, 0.3]).repeat(4096)
    >>> codes, scales = quantise_roots(x, torch.Generator().manual_seed(0))
    >>> back = dequantise(codes, scales, signed=False)
    >>> len(back.unique()), [round(float(part.square().mean().sqrt()), 4) for part in (back[::2], back[1::2])]
    (3, [1.0, 0.3])
    """
    cut = _cut(x)
    scales = cut.amax(1)
    shares = _shares(cut, scales, len(x))
    below = _codes(shares, signed=False)
    squares, per_gap = _squares(x.device)  # `upper` is 256 times the chance
    upper = shares.square_().sub_(squares.index_select(0, below)).mul_(per_gap.index_select(0, below))
    between = torch.rand(1, device=x.device, generator=draw)  # so that small chances need not be multiples of 1/256
    chance = uniform(len(x), draw, torch.uint8).float().add_(between)
    return below.add_(upper > chance).to(torch.uint8), scales


def dequantise(codes: Tensor, scales: Tensor, *, signed: bool) -> Tensor:
    """The numbers [n] float32 that codes [n] and scales [blocks(n)] stand for."""
    values = levels(codes.device, signed=signed).index_select(0, codes.int())
    return _cut(values).mul_(scales[:, None]).view(-1)[: len(codes)]


def _cut(x: Tensor) -> Tensor:
    """In rows of a block [blocks(n), BLOCK], the last filled with zeros; x itself where it is full."""
    return (pad(x, (0, -len(x) % BLOCK)) if len(x) % BLOCK else x).view(-1, BLOCK)


def _shares(cut: Tensor, scales: Tensor, count: int) -> Tensor:
    """The numbers of the blocks [count] as shares of their scales."""
    return (cut / torch.where(scales != 0, scales, 1.0)[:, None]).view(-1)[:count]


def _codes(shares: Tensor, *, signed: bool) -> Tensor:
    """int32: of the nearest signed levels; of the unsigned levels at or below."""
    guesses, borders = _lookup(shares.device, signed=signed)
    codes = guesses.index_select(0, (shares.view(torch.int32) >> 16) & 0xFFFF)
    past = torch.gt if signed else torch.ge
    return codes.add_(past(shares, borders.index_select(0, codes)))
