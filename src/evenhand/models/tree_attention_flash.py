"""Tree attention on a processor without copies: the flash kernel on slices of the flat sequence, joined by their log-sum-exps.

A completion attends to two disjoint sets of keys, its prompt and itself. With outputs o1, o2 and log-sum-exps l1, l2 of the two,

    l = log(e^l1 + e^l2),    o = e^(l1 - l) o1 + e^(l2 - l) o2

is attention over both. The kernel's backward pass needs only (o, l) to rebuild probabilities, so it runs on each part with the
joined pair, and the gradients add up (the identity behind ring attention, Liu et al. 2023, arXiv:2310.01889). No keys are
repeated per completion, no masks are built and nothing is padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from evenhand.types import Layout, Span

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


@dataclass(frozen=True, slots=True)
class Branch:
    """One group: its prompt, its completions as one span, and those again as runs of (first span, how many of that length)."""

    prompt: Span
    leaves: Span
    runs: tuple[tuple[Span, int], ...]


@lru_cache(maxsize=256)
def branches(layout: Layout) -> tuple[Branch, ...] | None:
    """The groups of a layout in which every prompt is followed directly by its completions; None for any other order."""
    out = []
    owned = groupby(zip(layout.owner, layout.completions, strict=True), key=lambda pair: pair[0])
    for group, pairs in owned:
        prompt, spans = layout.prompts[group], [span for _, span in pairs]
        ends = [prompt.stop, *(s.stop for s in spans)]
        if any(s.start != end for s, end in zip(spans, ends, strict=False)):
            return None
        same = [list(run) for _, run in groupby(spans, key=lambda s: s.length)]
        runs = tuple((run[0], len(run)) for run in same)
        out.append(Branch(prompt, Span(prompt.stop, ends[-1] - prompt.stop), runs))
    return tuple(out) if len(out) == len(layout.prompts) else None


class TreeFlash(torch.autograd.Function):
    """q [1, h, T, d], k and v [1, h_kv, T, d] -> [1, h, T, d], laid out so that its transpose [1, T, h, d] is contiguous."""

    @staticmethod
    @override
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, groups: tuple[Branch, ...], scale: float | None) -> Tensor:
        _, heads, total, size = q.shape
        out = q.new_empty(1, total, heads, size).transpose(1, 2)
        lse = torch.empty(1, heads, total, dtype=torch.promote_types(q.dtype, torch.float32))
        for group in groups:
            prompt, leaves = group.prompt, group.leaves
            own, own_lse = _forward(*(_cut(x, prompt) for x in (q, k, v)), 0.0, True, scale=scale)
            _cut(out, prompt).copy_(own)
            lse[:, :, prompt.start : prompt.stop] = own_lse
            up, up_lse = _forward(_cut(q, leaves), _cut(k, prompt), _cut(v, prompt), 0.0, False, scale=scale)
            for first, count in group.runs:
                own, own_lse = _forward(*(_fold(x, first, count) for x in (q, k, v)), 0.0, True, scale=scale)
                span = Span(first.start, first.length * count)
                _cut(out, span).copy_(_unfold(own))
                lse[:, :, span.start : span.stop] = _unfold(own_lse)
            _join(_cut(out, leaves), lse[:, :, leaves.start : leaves.stop], up, up_lse)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.groups, ctx.scale = groups, scale
        return out

    @staticmethod
    @once_differentiable
    @override
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        for group in ctx.groups:
            prompt, leaves = group.prompt, group.leaves

            def part(rows: Span, keys: Span, count: int, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
                own = [_fold(x, rows, count) for x in (grad, q, out, lse)]
                seen = [_fold(x, keys, count) for x in (k, v)]
                grads = _backward(own[0], own[1], *seen, own[2], own[3], 0.0, causal, scale=ctx.scale)
                dq, dk, dv = map(_unfold, grads)
                return dq, dk, dv

            for first, count in group.runs:
                span = Span(first.start, first.length * count)
                for target, value in zip((dq, dk, dv), part(first, first, count, True), strict=True):
                    _cut(target, span).copy_(value)
            for target, value in zip((dq, dk, dv), part(prompt, prompt, 1, True), strict=True):
                _cut(target, prompt).copy_(value)
            up = part(leaves, prompt, 1, False)
            _cut(dq, leaves).add_(up[0])
            _cut(dk, prompt).add_(up[1])
            _cut(dv, prompt).add_(up[2])
        return dq, dk, dv, None, None


def _cut(x: Tensor, span: Span) -> Tensor:
    return x[:, :, span.start : span.stop]


def _fold(x: Tensor, first: Span, count: int) -> Tensor:
    """[1, h, T, ...] -> [count, h, length, ...]: `count` spans of one length, one after the other. A view."""
    return x[0, :, first.start : first.start + first.length * count].unflatten(1, (count, first.length)).transpose(0, 1)


def _unfold(x: Tensor) -> Tensor:
    """The inverse of `_fold`: [count, h, length, ...] -> [1, h, count * length, ...]."""
    return x.transpose(0, 1).flatten(1, 2)[None]


def _join(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> None:
    """Extend (out, lse) by attention over further keys, in place."""
    joint = torch.logaddexp(lse, other_lse)
    out.mul_((lse - joint).exp_().to(out.dtype)[..., None])
    out.addcmul_(other, (other_lse - joint).exp_().to(out.dtype)[..., None])
    lse.copy_(joint)
