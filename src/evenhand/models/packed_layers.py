"""Frozen linear layers whose weights are kept in four bits (`core.nf4`), and made wide again for every product."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override

from evenhand.core import matmul, nf4


class PackedLinear(nn.Linear):
    """`x W^T + bias` with W in NF4; `weight` is W as it computes, made anew whenever it is read.

    There is no gradient of W, and the wide weight is held by nobody between two products.
    """

    halves: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.dtype = layer.weight.dtype
        halves, scale = nf4.packed(layer.weight)
        self.register_buffer("halves", halves)
        self.register_buffer("scale", scale)
        self.bias = layer.bias

    @property
    @override
    def weight(self) -> Tensor:  # type: ignore[override]  # nobody assigns it
        return nf4.unpacked(self.halves, self.scale, (self.out_features, self.in_features)).to(self.dtype)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return matmul.frozen_linear(x, lambda: self.weight, self.bias)


def plain(layer: PackedLinear, weight: Tensor) -> nn.Linear:
    """A layer like `layer` that is not packed, with this weight."""
    made = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    made.weight, made.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    return made
