"""Matrix products in single precision on a processor, by the faster of the two libraries that torch comes with.

torch gives fp32 products to MKL and bf16 products to oneDNN. MKL leaves half of an AMD processor idle: on a core
of Zen 5 it does 110 GFLOP/s where oneDNN reaches 250. So fp32 products go to oneDNN too. Both sum in fp32; results differ by
rounding alone. `torch.backends.mkldnn.flags(enabled=False)` turns this off.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

ROWS = 8
"""Fewer rows than this are a matter of reading the weight, which MKL does as well."""
WORK = 1 << 20
"""Multiplications below which the longer way to oneDNN costs more than it saves."""
LEAST = 4
"""The fewest rows that packed weights in float32 are read for."""
CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""How many products oneDNN, and torch's layer above it, keep prepared; each is read when the first product is made."""
KEPT = "64"
"""By themselves they keep 1,024 each: rollouts have other shapes in every step, at up to half a MB a shape."""
for _cache in CACHES:
    os.environ.setdefault(_cache, KEPT)
PLAIN = (Tensor, nn.Parameter)
"""Types that oneDNN can read: no subclass that stands for something else."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x weight^T + bias`: x [.., K], weight [N, K], bias [N] -> [.., N]. Differentiable; `torch.nn.functional.linear`, faster.

    >>> linear(torch.ones(1, 2), torch.tensor([[1.0, 2.0]]))
    tensor([[3.]])
    """
    if torch.is_autocast_enabled(x.device.type):
        return _in_autocast(x, weight, bias)
    if not worth_it(x, weight):
        return nn.functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)):
        return _Linear.apply(x, weight, bias)
    return _onednn()(x, weight, bias, "none", [], "")


def product(a: Tensor, b: Tensor) -> Tensor:
    """`a b`: a [M, K], b [K, N] -> [M, N], without gradients; transposed views cost nothing."""
    return _onednn()(a, b.t(), None, "none", [], "") if worth_it(a, b.t()) else torch.mm(a, b)


def packs() -> bool:
    """Whether this machine has packed weights: x86 processors with oneDNN."""
    return _switched_on() and _onednn() is not None and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def packed(weight: Tensor, *, rows: int) -> Tensor:
    """A copy of `weight` [N, K] in the order in which products with about `rows` rows read it, for `packed_linear` alone."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x W^T + bias` for a `packed` W of x's precision, without gradients.

    A row's numbers are the same beside any others. In float32 oneDNN takes a third longer for one or two rows of a large W than
    for four, and sums long products of a single row in another order: rows of zeros are put beside them.
    """
    rows = x.numel() // x.shape[-1]
    if rows >= LEAST or x.dtype != torch.float32 or LEAST * weight.numel() < WORK:
        return _onednn()(x, weight, bias, "none", [], "")
    filled = nn.functional.pad(x.reshape(rows, -1), (0, 0, 0, LEAST - rows))
    return _onednn()(filled, weight, bias, "none", [], "")[:rows].view(*x.shape[:-1], -1)


def row_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`x W^T + bias` in bfloat16 with W as it lies, without gradients.

    A single row goes to torch's own kernel, which reads W almost as fast as memory gives it; oneDNN, where torch would send it,
    takes twice as long, and a third longer for a `packed` W.
    """
    if x.numel() > x.shape[-1]:
        return nn.functional.linear(x, weight, bias)
    switch: Any = torch.backends.mkldnn  # `flags` sets four more things, which takes longer than a small product
    before, switch.enabled = switch.enabled, False
    try:
        return nn.functional.linear(x, weight, bias)
    finally:
        switch.enabled = before


def worth_it(x: Tensor, weight: Tensor) -> bool:
    """Whether `x weight^T` goes to oneDNN: large, in fp32, on a processor that has it."""
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or x.device.type != "cpu" or weight.device.type != "cpu":
        return False
    rows = x.numel() // max(1, x.shape[-1])
    large = rows >= ROWS and rows * weight.numel() >= WORK
    return large and type(x) in PLAIN and type(weight) in PLAIN and _switched_on() and _onednn() is not None


def _switched_on() -> bool:
    return bool(torch.backends.mkldnn.enabled)


@lru_cache(maxsize=1)
def _onednn() -> Any:
    """oneDNN's product as an operator, or None where this torch lacks it or it is not what it should be."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return None
    found = getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)
    if found is None:
        return None
    a, b = torch.arange(12.0).view(3, 4), torch.arange(8.0).view(4, 2)
    return found if torch.equal(found(a, b.t(), None, "none", [], ""), a @ b) else None


def _in_autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product in autocast's precision; a frozen weight is rounded to it again in the backward pass, and not kept."""
    learns = weight.requires_grad or (bias is not None and bias.requires_grad)
    return nn.functional.linear(x, weight, bias) if learns else frozen_linear(x, lambda: weight, bias)


def frozen_linear(x: Tensor, read: Callable[[], Tensor], bias: Tensor | None = None) -> Tensor:
    """`linear` with a weight that does not learn, which `read` gives anew for the forward pass and for the backward pass.

    Autocast has its say, and the result is that of `torch.nn.functional.linear` to the bit where that would be used. torch holds
    the rounded copy of each weight till the backward pass: of a network with an adapter half of its weights once more.
    """
    kind = x.device.type
    narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    if torch.is_grad_enabled() and x.requires_grad:
        return _FrozenLinear.apply(x, read, bias, narrow or x.dtype)
    return linear(x, read(), bias) if narrow is None else nn.functional.linear(x, read(), bias)


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, read: Callable[[], Tensor], bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        ctx.read, ctx.dtype, ctx.shape, ctx.given = read, dtype, x.shape, x.dtype
        with torch.autocast(x.device.type, enabled=False):
            return linear(x.to(dtype), read().to(dtype), None if bias is None else bias.to(dtype))

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # the decorator's fault
        with torch.autocast(grad.device.type, enabled=False):
            to_x = product(grad.flatten(0, -2).to(ctx.dtype), ctx.read().to(ctx.dtype))
        return to_x.view(ctx.shape).to(ctx.given), None, None, None


class _Linear(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        to_x, to_weight, _ = ctx.needs_input_grad  # a frozen weight needs no input, which is then held by nobody
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None)
        return _onednn()(x, weight, bias, "none", [], "")

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # the decorator's fault
        x, weight = ctx.saved_tensors
        flat = grad.flatten(0, -2)
        to_x = product(flat, weight).view(*grad.shape[:-1], weight.shape[1]) if ctx.needs_input_grad[0] else None
        to_weight = product(flat.t(), x.flatten(0, -2)) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, flat.sum(0) if ctx.needs_input_grad[2] else None
