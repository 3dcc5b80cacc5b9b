"""Passes over one chunk of logits [m, V]: what `core.logprob` does to the vocabulary, row block by row block, in place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evenhand.core import matmul

BLOCK_BYTES = 1 << 20
"""Elementwise passes on a processor go over blocks of rows that stay in its cache."""


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """A head `z = cap(scale * (h w^T + b)) / temperature`; `w` [V, H] and `b` [V] are in the products' precision."""

    w: Tensor
    b: Tensor | None
    temperature: float
    softcap: float | None
    scale: float

    @property
    def gain(self) -> float:
        """d(argument of the cap, or z when there is none) / d(h w^T + b)."""
        return self.scale / (self.softcap or self.temperature)

    @property
    def real(self) -> torch.dtype:
        """The precision of sums over the vocabulary."""
        return torch.promote_types(self.w.dtype, torch.float32)


@dataclass(frozen=True, slots=True)
class Rows:
    """A chunk of rows: states [m, H], answers [m], and statistics of their distributions, each [m]."""

    hidden: Tensor
    ids: Tensor
    answer: Tensor
    """Logit of the answer."""
    peak: Tensor
    """Largest logit."""
    total: Tensor
    """Sum over the vocabulary of exp(z - peak)."""
    entropy: Tensor | None


def logits(head: HeadWeights, hidden: Tensor) -> Tensor:
    """z [m, V] in fp32 or fp64; the gain rides in the product's alpha, or on its small side."""
    if matmul.worth_it(hidden, head.w):
        z = matmul.product(hidden if head.gain == 1 else hidden * head.gain, head.w.t())
        if head.b is not None:
            z.add_(head.b, alpha=head.gain)
    else:
        start = hidden.new_zeros(1) if head.b is None else head.b
        beta = 0.0 if head.b is None else head.gain
        z = torch.addmm(start, hidden, head.w.t(), beta=beta, alpha=head.gain).to(head.real)
    if head.softcap is not None:
        z.tanh_().mul_(head.softcap / head.temperature)
    return z


def exponentials(z: Tensor, rows: Rows) -> None:
    """Turn logits into exp(z - peak) in place, and fill the statistics: H = log total - sum_v e (z - peak) / total."""
    rows.answer.copy_(z.gather(1, rows.ids[:, None])[:, 0])
    for part in _blocks(z):
        block = z[part]
        torch.amax(block, dim=1, out=rows.peak[part])
        block.sub_(rows.peak[part, None])
        if rows.entropy is None:
            block.exp_()
        else:
            shifted = block.clone()
            rows.entropy[part] = -shifted.mul_(block.exp_()).sum(1)
        torch.sum(block, dim=1, out=rows.total[part])
    if rows.entropy is not None:
        rows.entropy.div_(rows.total).add_(rows.total.log())


def subtract_answers(z: Tensor, rows: Rows) -> None:
    """e -> e - total * onehot, in place: `total` times the gradient of -logp."""
    z.scatter_add_(1, rows.ids[:, None], -rows.total[:, None])


def gradient_of_logp(head: HeadWeights, rows: Rows, grad: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """(g [m, V], row [m]) such that the gradient of `sum grad * logp` in (h w^T + b) is `gain * row[:, None] * g`.

    `kept` is what `subtract_answers` left in the forward pass; None to compute it again.
    """
    row = -grad / rows.total
    if kept is not None:
        return kept, row
    z, slope = _exponentials_again(head, rows)
    subtract_answers(z, rows)
    return (z if slope is None else z.mul_(slope)).to(head.w.dtype), row


def gradient_with_entropy(
    head: HeadWeights, rows: Rows, grad: Tensor, grad_entropy: Tensor, kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `gradient_of_logp` for `sum a logp + b H`: in z it is onehot a - p (a + b (log p + H)), with a, b the two grads."""
    assert rows.entropy is not None
    slope = None
    if kept is None:
        z, slope = _exponentials_again(head, rows)
    else:
        z = kept.scatter(1, rows.ids[:, None], (rows.answer - rows.peak).exp()[:, None])
    for part in _blocks(z):
        p = z[part].div_(rows.total[part, None])
        factor = p.log().clamp_(min=torch.finfo(p.dtype).min)  # p log p -> 0 where p underflowed
        factor.add_(rows.entropy[part, None]).mul_(grad_entropy[part, None]).add_(grad[part, None])
        p.mul_(factor).neg_()
    z.scatter_add_(1, rows.ids[:, None], grad[:, None])
    return (z if slope is None else z.mul_(slope)).to(head.w.dtype), torch.ones_like(rows.total)


def _exponentials_again(head: HeadWeights, rows: Rows) -> tuple[Tensor, Tensor | None]:
    """exp(z - peak), and the slope of the cap if there is one."""
    z, slope = logits(head, rows.hidden), None
    if head.softcap is not None:
        tanh = z * (head.temperature / head.softcap)
        slope = (1 - tanh.square_()).mul_(head.softcap / head.temperature)
    for part in _blocks(z):
        z[part].sub_(rows.peak[part, None]).exp_()
    return z, slope


def _blocks(z: Tensor) -> list[slice]:
    """Blocks of rows small enough for the cache; one block on an accelerator, where launches cost more."""
    if z.device.type != "cpu":
        return [slice(0, len(z))]
    size = max(1, BLOCK_BYTES // max(1, z.shape[1] * z.element_size()))
    return [slice(i, i + size) for i in range(0, len(z), size)]
