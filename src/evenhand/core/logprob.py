"""Log-probabilities of chosen tokens without keeping logits: the one place that touches the vocabulary.

A language model's head is `z = cap(scale * (h W^T + b)) / temperature` with `cap(x) = softcap * tanh(x / softcap)`, and

    logp_t = z[t, y_t] - logsumexp_v z[t, v]            dlogp/dz = onehot(y_t) - p_t
    H_t    = -sum_v p[t, v] log p[t, v]                 dH/dz    = -p_t (log p_t + H_t)

Rows are processed in chunks. Scaling by the incoming gradient is linear in a row, so it is applied to the small factor of each
product, never to the [M, V] matrix. What the backward pass needs of that matrix is carried while a byte budget lasts
(three products in all) and recomputed beyond it (four).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CARRY_BYTES = {"cpu": 512 << 20, "cuda": 1 << 30}
"""Default budget for what the backward pass may carry instead of recomputing, per call."""
CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}
"""Default size of the working buffer of logits."""
BLOCK_BYTES = 1 << 20
"""Elementwise passes on a processor go over blocks of rows that stay in its cache."""


@dataclass(frozen=True, slots=True)
class _Head:
    """Everything about the head that is not a tensor."""

    temperature: float
    softcap: float | None
    scale: float
    matmul_dtype: torch.dtype
    chunk: int
    carry_rows: int

    @property
    def gain(self) -> float:
        """d(argument of the cap, or z when there is none) / d(h W^T + b)."""
        return self.scale / (self.softcap or self.temperature)


def completion_logp(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    scale: float = 1.0,
    matmul_dtype: torch.dtype | None = None,
    chunk: int | None = None,
    carry_bytes: int | None = None,
) -> Tensor:
    """`log softmax(cap(scale * (hidden weight^T + bias)) / temperature)[ids]`, shape [M], in nats, fp32 (or fp64 for fp64).

    `hidden` [M, H] are the states that predict `ids` [M]; `weight` [V, H]; `bias` [V]. Differentiable in hidden, weight and bias.
    `matmul_dtype` runs the products in another precision (say bf16); sums over the vocabulary stay in fp32.
    `chunk` rows are held at a time; up to `carry_bytes` are carried to the backward pass. Neither changes the result.

    >>> import torch
    >>> completion_logp(torch.zeros(1, 3), torch.zeros(4, 3), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    head = _describe(hidden, weight, bias, temperature, softcap, scale, matmul_dtype, chunk, carry_bytes)
    return _CompletionLogp.apply(hidden, weight, bias, ids, head, False)[0]


def completion_logp_entropy(
    hidden: Tensor,
    weight: Tensor,
    ids: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    scale: float = 1.0,
    matmul_dtype: torch.dtype | None = None,
    chunk: int | None = None,
    carry_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`completion_logp` and the entropy of each distribution, both [M], in nats. The entropy is differentiable too.

    >>> import torch
    >>> logp, entropy = completion_logp_entropy(torch.zeros(1, 3), torch.zeros(4, 3), torch.tensor([2]))
    >>> entropy.exp()
    tensor([4.])
    """
    head = _describe(hidden, weight, bias, temperature, softcap, scale, matmul_dtype, chunk, carry_bytes)
    return _CompletionLogp.apply(hidden, weight, bias, ids, head, True)


def _describe(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    temperature: float,
    softcap: float | None,
    scale: float,
    matmul_dtype: torch.dtype | None,
    chunk: int | None,
    carry_bytes: int | None,
) -> _Head:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}: a greedy distribution has no log-probabilities")
    rows, vocabulary = len(hidden), len(weight)
    dtype = matmul_dtype or weight.dtype
    device = "cpu" if hidden.device.type == "cpu" else "cuda"
    width = vocabulary * max(dtype.itemsize, 4)
    differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, weight, bias))
    budget = CARRY_BYTES[device] if carry_bytes is None else carry_bytes
    # The cap's slope needs the logits themselves, which the carried exponentials do not give back: recompute.
    carry = budget // (vocabulary * dtype.itemsize) if differentiable and softcap is None else 0
    chunk = chunk or max(16, CHUNK_BYTES[device] // width)
    return _Head(temperature, softcap, scale, dtype, chunk, min(carry, rows))


def _without_autocast(method: Callable[..., Any]) -> Callable[..., Any]:
    """Precision is an argument here, so an enclosing autocast has no say."""

    @wraps(method)
    def run(ctx: Any, first: Tensor | None, *rest: Any) -> Any:
        device = next((t.device.type for t in (first, *rest) if isinstance(t, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return method(ctx, first, *rest)

    return run


class _CompletionLogp(torch.autograd.Function):
    @staticmethod
    @_without_autocast
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, head: _Head, with_entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        w, h, b = _matmul_operands(hidden, weight, bias, head)
        real = _real(w.dtype)
        # An entropy's gradient needs log p: not to be had from exponentials rounded to half precision.
        carry_rows = 0 if with_entropy and w.dtype != real else head.carry_rows
        carried = torch.empty(carry_rows, len(w), dtype=w.dtype, device=w.device)
        stats = torch.empty(3, len(h), dtype=real, device=h.device)  # answer's logit, maximum, sum of exponentials
        entropy = torch.empty(len(h), dtype=real, device=h.device) if with_entropy else None
        for rows in _chunks(len(h), head.chunk, carry_rows):
            into = carried[rows] if rows.stop <= carry_rows else None
            buffer = into if into is not None and into.dtype == real else None
            z = _logits(h[rows], w, b, head, out=buffer)
            _exponentials(z, ids[rows], stats[:, rows], entropy[rows] if with_entropy else None)
            if into is not None:
                _minus_at(z, ids[rows], stats[2, rows])
                if buffer is None:
                    into.copy_(z)
        answer, peak, total = stats
        ctx.head, ctx.set = head, (bias is not None)
        ctx.save_for_backward(hidden, weight, bias, ids, stats, carried, entropy)
        ctx.set_materialize_grads(False)
        return answer - (peak + total.log()), entropy

    @staticmethod
    @once_differentiable
    @_without_autocast
    def backward(ctx: Any, grad_logp: Tensor | None, grad_entropy: Tensor | None = None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, ids, stats, carried, entropy = ctx.saved_tensors
        head: _Head = ctx.head
        if grad_logp is None and grad_entropy is None:
            return (None,) * 6
        w, h, b = _matmul_operands(hidden, weight, bias, head)
        if grad_logp is None:
            grad_logp = torch.zeros_like(grad_entropy)
        need_h, need_w, need_b = ctx.needs_input_grad[:3]
        real = stats.dtype
        grad_h = torch.empty(h.shape, dtype=real, device=h.device) if need_h else None
        grad_w = (torch.empty if len(h) else torch.zeros)(w.shape, dtype=real, device=w.device) if need_w else None
        grad_b = torch.zeros(len(w), dtype=real, device=w.device) if need_b else None
        for rows in _chunks(len(h), head.chunk, len(carried), whole=grad_entropy is None):
            part = _Rows(h[rows], ids[rows], stats[:, rows], grad_logp[rows])
            if grad_entropy is not None:
                part.entropy, part.grad_entropy = entropy[rows], grad_entropy[rows]
            kept = carried[rows] if rows.stop <= len(carried) else None
            g, row = _logit_gradient(part, w, b, head, kept)
            _accumulate(g, row * head.gain, part.hidden, w, rows, grad_h, grad_w, grad_b)
        return (
            None if grad_h is None else grad_h.to(hidden.dtype),
            None if grad_w is None else grad_w.to(weight.dtype),
            None if grad_b is None else grad_b.to(bias.dtype),
            None,
            None,
            None,
        )


class _Rows:
    """What the backward pass knows about a chunk of rows."""

    def __init__(self, hidden: Tensor, ids: Tensor, stats: Tensor, grad_logp: Tensor) -> None:
        self.hidden, self.ids, self.grad_logp = hidden, ids, grad_logp
        self.answer, self.peak, self.total = stats
        self.entropy: Tensor | None = None
        self.grad_entropy: Tensor | None = None


def _real(dtype: torch.dtype) -> torch.dtype:
    """The precision of sums over the vocabulary."""
    return torch.promote_types(dtype, torch.float32)


def _matmul_operands(hidden: Tensor, weight: Tensor, bias: Tensor | None, head: _Head) -> tuple[Tensor, Tensor, Tensor | None]:
    cast = head.matmul_dtype
    return weight.detach().to(cast), hidden.detach().to(cast), None if bias is None else bias.detach().to(cast)


def _chunks(rows: int, size: int, carried: int, *, whole: bool = False) -> list[slice]:
    """Slices of at most `size` rows; none straddles the end of the carried rows, which are one slice when `whole`."""
    head = [slice(0, carried)] if whole and carried else [slice(i, min(i + size, carried)) for i in range(0, carried, size)]
    return head + [slice(i, min(i + size, rows)) for i in range(carried, rows, size)]


def _blocks(z: Tensor) -> list[slice]:
    """Blocks of rows small enough for the cache; one block on an accelerator, where launches cost more."""
    if z.device.type != "cpu":
        return [slice(0, len(z))]
    size = max(1, BLOCK_BYTES // max(1, z.shape[1] * z.element_size()))
    return [slice(i, i + size) for i in range(0, len(z), size)]


def _logits(h: Tensor, w: Tensor, b: Tensor | None, head: _Head, out: Tensor | None = None) -> Tensor:
    """z [m, V] in fp32 or fp64; the gain rides in the product's alpha."""
    real = _real(w.dtype)
    start = h.new_zeros(1) if b is None else b
    beta = 0.0 if b is None else head.gain
    if w.dtype == real:
        z = torch.addmm(start, h, w.t(), beta=beta, alpha=head.gain, out=out)
    else:
        z = torch.addmm(start, h, w.t(), beta=beta, alpha=head.gain).to(real)
    if head.softcap is not None:
        z.tanh_().mul_(head.softcap / head.temperature)
    return z


def _exponentials(z: Tensor, ids: Tensor, stats: Tensor, entropy: Tensor | None) -> None:
    """Turn logits [m, V] into exp(z - peak) in place; fill answer, peak, total (and entropy = log total - sum e d / total)."""
    answer, peak, total = stats
    answer.copy_(z.gather(1, ids[:, None])[:, 0])
    for rows in _blocks(z):
        block = z[rows]
        torch.amax(block, dim=1, out=peak[rows])
        block.sub_(peak[rows, None])
        if entropy is None:
            block.exp_()
        else:
            shifted = block.clone()
            entropy[rows] = -shifted.mul_(block.exp_()).sum(1)
        torch.sum(block, dim=1, out=total[rows])
    if entropy is not None:
        entropy.div_(total).add_(total.log())


def _minus_at(z: Tensor, ids: Tensor, amount: Tensor) -> None:
    z.scatter_add_(1, ids[:, None], -amount[:, None])


def _logit_gradient(part: _Rows, w: Tensor, b: Tensor | None, head: _Head, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """(g [m, V], row [m]) such that the gradient of (h W^T + b) is `gain * row[:, None] * g`; g in the products' precision."""
    slope = None
    if kept is not None and part.grad_entropy is None:
        z = kept
    elif kept is not None:
        z = kept.scatter(1, part.ids[:, None], (part.answer - part.peak).exp()[:, None])
    else:
        z = _logits(part.hidden, w, b, head)
        if head.softcap is not None:
            slope = (1 - (z * (head.temperature / head.softcap)).square_()).mul_(head.softcap / head.temperature)
        for rows in _blocks(z):
            z[rows].sub_(part.peak[rows, None]).exp_()
    if part.grad_entropy is not None:
        _mix_entropy(z, part)
        row = torch.ones_like(part.total)
    else:
        if kept is None:
            _minus_at(z, part.ids, part.total)
        row = -part.grad_logp / part.total
    if slope is not None:
        z.mul_(slope)
    return z.to(w.dtype), row


def _mix_entropy(z: Tensor, part: _Rows) -> None:
    """Turn exponentials into the gradient of `a logp + b H`: onehot a - p (a + b (log p + H)), in place."""
    for rows in _blocks(z):
        p = z[rows].div_(part.total[rows, None])
        factor = p.log().clamp_(min=torch.finfo(p.dtype).min)  # p log p -> 0 where p underflowed
        factor.add_(part.entropy[rows, None]).mul_(part.grad_entropy[rows, None]).add_(part.grad_logp[rows, None])
        p.mul_(factor).neg_()
    _minus_at(z, part.ids, -part.grad_logp)


def _accumulate(
    g: Tensor, row: Tensor, h: Tensor, w: Tensor, rows: slice, grad_h: Tensor | None, grad_w: Tensor | None, grad_b: Tensor | None
) -> None:
    """The two products of the backward pass. `row` multiplies the small side of each."""
    if grad_h is not None:
        grad_h[rows] = torch.mm(g, w).to(grad_h.dtype).mul_(row[:, None])
    scaled = (h * row[:, None]).to(g.dtype)
    if grad_w is not None:
        first = rows.start == 0
        if g.dtype == grad_w.dtype:
            grad_w.addmm_(g.t(), scaled, beta=0 if first else 1)
        elif first:
            grad_w.copy_(torch.mm(g.t(), scaled))
        else:
            grad_w.add_(torch.mm(g.t(), scaled))
    if grad_b is not None:
        grad_b.add_(torch.mv(g.t().to(grad_b.dtype), row.to(grad_b.dtype)))
