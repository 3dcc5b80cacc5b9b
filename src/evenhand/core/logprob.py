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
from typing_extensions import override

from evenhand.core import logits_kernels, matmul
from evenhand.core.logits_kernels import HeadWeights, Rows

CARRY_BYTES = {"cpu": 512 << 20, "cuda": 1 << 30}
"""Default budget for what the backward pass may carry instead of recomputing, per call."""
CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}
"""Default size of the working buffer of logits."""


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
    shape = _Shape(temperature, softcap, scale, matmul_dtype or weight.dtype, False)
    return _CompletionLogp.apply(hidden, weight, bias, ids, shape, _cut(hidden, weight, bias, shape, chunk, carry_bytes))[0]


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
    shape = _Shape(temperature, softcap, scale, matmul_dtype or weight.dtype, True)
    return _CompletionLogp.apply(hidden, weight, bias, ids, shape, _cut(hidden, weight, bias, shape, chunk, carry_bytes))


@dataclass(frozen=True, slots=True)
class _Shape:
    """Everything about a head that is not a tensor, and whether entropies are wanted."""

    temperature: float
    softcap: float | None
    scale: float
    matmul_dtype: torch.dtype
    entropy: bool

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}: a greedy choice has no log-probabilities")

    def operands(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[HeadWeights, Tensor]:
        """The head and the states in the products' precision."""
        w, h = (x.detach().to(self.matmul_dtype) for x in (weight, hidden))
        b = None if bias is None else bias.detach().to(self.matmul_dtype)
        return HeadWeights(w, b, self.temperature, self.softcap, self.scale), h


@dataclass(frozen=True, slots=True)
class _Cut:
    """How rows are processed: `chunk` at a time, the first `carried` of them kept for the backward pass."""

    chunk: int
    carried: int

    def chunks(self, rows: int, *, whole: bool = False) -> list[slice]:
        """Slices of all rows; none straddles the end of the carried ones, which are a single slice when `whole`."""
        kept = self.carried if whole else self.chunk
        head = [slice(i, min(i + kept, self.carried)) for i in range(0, self.carried, max(kept, 1))]
        return head + [slice(i, min(i + self.chunk, rows)) for i in range(self.carried, rows, self.chunk)]


def _cut(hidden: Tensor, weight: Tensor, bias: Tensor | None, shape: _Shape, chunk: int | None, carry_bytes: int | None) -> _Cut:
    rows, width, dtype = len(hidden), len(weight), shape.matmul_dtype
    device = "cpu" if hidden.device.type == "cpu" else "cuda"
    budget = CARRY_BYTES[device] if carry_bytes is None else carry_bytes
    differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, weight, bias))
    # The slope of a cap needs the logits themselves, and the gradient of an entropy log p: exponentials do not give back the
    # first, nor, rounded to half precision, the second. Those are recomputed.
    possible = shape.softcap is None and not (shape.entropy and dtype.itemsize < 4)
    carried = min(rows, budget // (width * dtype.itemsize)) if differentiable and possible else 0
    return _Cut(chunk or max(16, CHUNK_BYTES[device] // (width * max(dtype.itemsize, 4))), carried)


def _without_autocast(method: Callable[..., Any]) -> Callable[..., Any]:
    """Precision is an argument here, so an enclosing autocast has no say."""

    @wraps(method)
    def run(ctx: Any, *args: Any) -> Any:
        device = next((x.device.type for x in args if isinstance(x, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return method(ctx, *args)

    return run


class _CompletionLogp(torch.autograd.Function):
    @staticmethod
    @_without_autocast
    @override
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor | None]:
        hidden, weight, bias, ids, shape, cut = args
        head, h = shape.operands(hidden, weight, bias)
        stats = torch.empty(3, len(h), dtype=head.real, device=h.device)
        entropy = torch.empty(len(h), dtype=head.real, device=h.device) if shape.entropy else None
        as_computed = head.w.dtype == head.real  # what is carried is the very buffer that was worked in
        carried = torch.empty(0 if as_computed else cut.carried, len(weight), dtype=head.w.dtype, device=h.device)
        for part in cut.chunks(len(h), whole=as_computed):
            rows = _rows(part, h, ids, stats, entropy)
            z = logits_kernels.logits(head, rows.hidden)
            logits_kernels.exponentials(z, rows)
            if part.stop <= cut.carried:
                logits_kernels.subtract_answers(z, rows)
                if as_computed:
                    carried = z
                else:
                    carried[part] = z
        ctx.shape, ctx.cut = shape, cut
        ctx.save_for_backward(hidden, weight, bias, ids, stats, entropy, carried)
        ctx.set_materialize_grads(False)
        answer, peak, total = stats
        return answer - (peak + total.log()), entropy

    @staticmethod
    @once_differentiable
    @_without_autocast
    @override
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # the decorators' fault
        grad_logp, grad_entropy = grads
        if grad_logp is None and grad_entropy is None:
            return (None,) * 6
        hidden, weight, bias, ids, stats, entropy, carried = ctx.saved_tensors
        head, h = ctx.shape.operands(hidden, weight, bias)
        grad = torch.zeros_like(grad_entropy) if grad_logp is None else grad_logp
        sums = _Sums(head, h, ctx.needs_input_grad[:3])
        for part in ctx.cut.chunks(len(h), whole=grad_entropy is None):
            rows = _rows(part, h, ids, stats, entropy)
            kept = carried[part] if part.stop <= ctx.cut.carried else None
            if grad_entropy is None:
                g, row = logits_kernels.gradient_of_logp(head, rows, grad[part], kept)
            else:
                g, row = logits_kernels.gradient_with_entropy(head, rows, grad[part], grad_entropy[part], kept)
            sums.add(part, g, row * head.gain)
        return *sums.like(hidden, weight, bias), None, None, None


def _rows(part: slice, h: Tensor, ids: Tensor, stats: Tensor, entropy: Tensor | None) -> Rows:
    """A chunk, with views of the statistics [3, M] that belong to it."""
    answer, peak, total = stats[:, part]
    return Rows(h[part], ids[part], answer, peak, total, None if entropy is None else entropy[part])


class _Sums:
    """The gradients of hidden, weight and bias, summed over chunks in fp32 or fp64; None where not needed."""

    def __init__(self, head: HeadWeights, hidden: Tensor, needed: tuple[bool, ...]) -> None:
        self._head, self._source, self._needed = head, hidden, needed
        self.hidden = torch.empty_like(hidden, dtype=head.real) if needed[0] else None
        self.weight: Tensor | None = None
        self.bias = hidden.new_zeros(len(head.w), dtype=head.real) if needed[2] else None

    def add(self, part: slice, g: Tensor, row: Tensor) -> None:
        """A chunk's gradient `row[:, None] * g` in (h w^T + b); `row` multiplies the small side of each product."""
        if self.hidden is not None:
            self.hidden[part] = matmul.product(g, self._head.w).to(self.hidden.dtype).mul_(row[:, None])
        if self._needed[1]:
            self._add_to_weight(g.t(), (self._source[part] * row[:, None]).to(g.dtype))
        if self.bias is not None:
            self.bias.add_(torch.mv(g.t().to(self.bias.dtype), row))

    def _add_to_weight(self, a: Tensor, b: Tensor) -> None:
        if self.weight is None:
            self.weight = matmul.product(a, b).to(self._head.real)
        elif self.weight.dtype == a.dtype and not matmul.worth_it(a, b.t()):
            self.weight.addmm_(a, b)
        else:
            self.weight.add_(matmul.product(a, b))

    def like(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor | None, ...]:
        """In the precision of the inputs. Without rows, the weight's gradient is zero."""
        if self._needed[1] and self.weight is None:
            self.weight = torch.zeros_like(weight)
        pairs = ((self.hidden, hidden), (self.weight, weight), (self.bias, bias))
        return tuple(None if grad is None or leaf is None else grad.to(leaf.dtype) for grad, leaf in pairs)
