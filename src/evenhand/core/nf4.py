"""NF4: weights in four bits, sixteen levels that a normal distribution uses equally often.

Source: Dettmers et al. 2023, QLoRA, section 3 and appendix E. A block of 64 weights shares one scale, its largest magnitude, in
float32: 4.5 bits a weight. Levels, blocks and the order of the half bytes are those of bitsandbytes, which is not needed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
BLOCK = 64
"""Weights that share a scale, in the order they lie in memory."""
BITS = 4 + 32 / BLOCK
"""A weight's share of levels and scales."""


def packed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Half bytes, two to a byte, and the scale of every block: uint8 [ceil(n / 64) * 32], float32 [ceil(n / 64)].

    Each weight goes to the level nearest to weight / scale; between two the lower one is taken. A block of zeros has the scale 0.

    >>> halves, scale = packed(torch.tensor([2.0, -2.0, 0.0, 0.2]))
    >>> halves[:2].tolist(), scale.tolist()
    ([240, 120], [2.0])
    """
    blocks = torch.nn.functional.pad(weight.detach().float().flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(1)
    unit = blocks / torch.where(scale == 0, 1.0, scale)[:, None]
    levels = torch.tensor(LEVELS, device=weight.device)
    level = torch.bucketize(unit, (levels[1:] + levels[:-1]) / 2, out_int32=True).to(torch.uint8).flatten()
    return level[0::2] << 4 | level[1::2], scale


def unpacked(packed: Tensor, scale: Tensor, shape: Sequence[int]) -> Tensor:
    """The weights that `packed` stands for, float32 of this shape: level times scale. Packing them again gives the same bytes.

    >>> unpacked(*packed(torch.tensor([2.0, -2.0, 0.0, 0.2])), (2, 2)).tolist()
    [[2.0, -2.0], [0.0, 0.15916059911251068]]
    """
    levels = _pairs(packed.device).index_select(0, packed.int()).view(torch.float32)
    return levels.view(-1, BLOCK).mul_(scale[:, None]).flatten()[: torch.Size(shape).numel()].view(*shape)


def rounded(weight: Tensor) -> Tensor:
    """Each weight as it is after packing, in its own precision."""
    return unpacked(*packed(weight), weight.shape).to(weight.dtype)


@cache
def _pairs(device: torch.device) -> Tensor:
    """[256]: the two levels of a byte, in the eight bytes of one number: looked up at once they take a tenth of the time.

    Made once: an accelerator waits for what comes from the processor.
    """
    byte = torch.arange(256, device=device)
    return torch.tensor(LEVELS, device=device)[torch.stack([byte >> 4, byte & 15], dim=1)].view(torch.float64).flatten()
