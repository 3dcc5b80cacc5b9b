"""Linear layers that compute by `evenhand.core.matmul.linear`, which is torch's own product where that is as fast.

A layer changes its class and not its `forward`: a method that a layer holds of itself would keep its weights, once nobody needs
them, until the garbage collector runs.
"""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override

from evenhand.core import matmul


class FastLinear(nn.Linear):
    """torch's linear layer, by the faster product."""

    @override
    def forward(self, input: Tensor) -> Tensor:  # the name is torch's
        return matmul.linear(input, self.weight, self.bias)


def with_fast_products(hf: nn.Module) -> None:
    """Let every linear layer of torch's own compute by the faster product."""
    for module in hf.modules():
        if type(module) is nn.Linear and "forward" not in vars(module):
            module.__class__ = FastLinear
