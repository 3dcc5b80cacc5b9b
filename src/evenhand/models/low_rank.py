"""What a layer with an adapter weighs: V = W + s B A (LoRA), or that with rows of lengths that are learned apart (DoRA).

Of the latter `W' = m / ||V|| V`, one length in m and one norm for each output of the layer, as in peft. Source: Liu et al.
2024 (arXiv:2402.09353), equation 5, with the norm held fixed in the gradient (section 4.3). m begins as ||W||, so that training
begins at the start itself; with m = ||V|| it is LoRA.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override


@torch.no_grad()
def changed(
    weight: Tensor, a: Tensor, b: Tensor, scaling: float, magnitude: Tensor | None = None, *, transposed: bool = False
) -> Tensor:
    """`W + s B A`, at least in float32, with W [out, in], A [rank, in], B [out, rank]; `transposed`: W is [in, out].

    `magnitude` [out]: its rows are then made that long (DoRA).

    >>> changed(torch.zeros(2, 1), torch.tensor([[3.0]]), torch.tensor([[1.0], [2.0]]), 0.5).tolist()
    [[1.5], [3.0]]
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    change = b.to(wide) @ a.to(wide) * scaling
    sum = weight.to(wide) + (change.t() if transposed else change)
    return sum if magnitude is None else stretched(sum, magnitude, transposed=transposed)


@torch.no_grad()
def row_lengths(weight: Tensor, *, transposed: bool = False) -> Tensor:
    """||w|| of what each output weighs, [out]; 1 for one of zeros, which stays so. `transposed`: `weight` is [in, out].

    >>> row_lengths(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [5.0, 1.0]
    """
    lengths = torch.linalg.vector_norm(weight, dim=0 if transposed else 1)
    return lengths.masked_fill(lengths == 0, 1.0)


def stretch(magnitude: Tensor, weight: Tensor, *, transposed: bool = False) -> Tensor:
    """m / ||V||, [out], in the precision of V; the norm is first rounded to m's, so that m as it began gives 1 exactly."""
    return magnitude.to(weight.dtype) / row_lengths(weight, transposed=transposed).to(magnitude.dtype).to(weight.dtype)


def stretched(weight: Tensor, magnitude: Tensor, *, transposed: bool = False) -> Tensor:
    """`m / ||V|| V`: V with rows of the lengths m.

    >>> stretched(torch.tensor([[3.0, 4.0]]), torch.tensor([10.0])).tolist()
    [[6.0, 8.0]]
    """
    ratio = stretch(magnitude, weight, transposed=transposed)
    return weight * (ratio if transposed else ratio[:, None])


class Magnitude(nn.Module):
    """m of one layer, where peft looks for it; `weight` [out] learns."""

    def __init__(self, lengths: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(lengths)

    @override
    def forward(
        self, x: Tensor, *, lora_A: Any, lora_B: Any, scaling: float, base_layer: Any, base_result: Tensor, **_: Any
    ) -> Tensor:  # the names are peft's
        """What is added to `base_result` = W x + bias, for m / ||V|| V x + bias."""
        transposed = not isinstance(base_layer, nn.Linear)
        v = changed(base_layer.weight, lora_A.weight, lora_B.weight, scaling, transposed=transposed)
        ratio = stretch(self.weight, v, transposed=transposed)
        product = base_result if base_layer.bias is None else base_result - base_layer.bias
        return (ratio - 1).to(x.dtype) * product + (ratio * scaling).to(x.dtype) * lora_B(lora_A(x))
