"""Tree attention through padded blocks: any device, any rule. Spans of similar size are gathered and computed together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from evenhand.data.batch import paths
from evenhand.types import Layout, Span

WASTE = 1.25
"""Spans share a block while padding makes it at most this much larger than they are."""
BLOCK_AREA = 1 << 22
"""Query-key pairs in one block at most, unless a single span needs more: bounds memory."""


@dataclass(frozen=True, slots=True)
class AttentionUnit:
    """One attention problem: queries of `own` on keys of `before` (a completion's prompt; None for a prompt) and of `own`."""

    own: Span
    before: Span | None

    @property
    def size(self) -> tuple[int, int]:
        """(queries, keys)"""
        return self.own.length, self.own.length + (self.before.length if self.before else 0)


@dataclass(frozen=True, slots=True)
class AttentionBlock:
    """Units padded to one size: `query` [B, Lq] and `key` [B, Lk] are flat positions.

    Padding repeats a unit's last query and first key; `asked` [B, Lq] and `valid` [B, Lk] are False there. `causal` says that
    plain causal order is all the mask there is (the block holds prompts, whose padding lies in the future of every real token).
    """

    query: Tensor
    key: Tensor
    asked: Tensor
    valid: Tensor
    causal: bool


class Blocks:
    """The blocks of one batch, and their masks."""

    def __init__(self, layout: Layout, positions: Tensor) -> None:
        self.positions, device = positions, positions.device
        prompts = [AttentionUnit(p, None) for p in layout.prompts]
        leaves = [AttentionUnit(completion, prompt) for prompt, completion in paths(layout)]
        self.blocks = [make(u, device, causal=True) for u in bucket(prompts)] + [
            make(u, device, causal=False) for u in bucket(leaves)
        ]
        self.inverse = self._inverse(layout.total)
        self._masks: dict[tuple[int | None, torch.dtype], list[Tensor | None]] = {}

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None, window: int | None, softcap: float | None
    ) -> Tensor:
        """q [1, h, T, d], k and v [1, h_kv, T, d] -> [1, T, h, d]."""
        q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))  # [T, h, d]
        outs = []
        for block, mask in zip(self.blocks, self.masks(window, q.dtype), strict=True):
            query, key, value = (x[i].transpose(1, 2) for x, i in ((q, block.query), (k, block.key), (v, block.key)))
            out = plain(query, key, value, mask, scale) if softcap is None else capped(query, key, value, mask, scale, softcap)
            outs.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(outs)[self.inverse][None]

    def masks(self, window: int | None, dtype: torch.dtype) -> list[Tensor | None]:
        """An additive mask [B, 1, Lq, Lk] per block, or None where plain causal order is enough. Built once per window."""
        if (window, dtype) not in self._masks:
            self._masks[window, dtype] = [self._mask(b, window, dtype) for b in self.blocks]
        return self._masks[window, dtype]

    def _mask(self, block: AttentionBlock, window: int | None, dtype: torch.dtype) -> Tensor | None:
        if block.causal and window is None:
            return None
        distance = self.positions[block.query][:, :, None] - self.positions[block.key][:, None, :]
        allowed = (distance >= 0) & block.valid[:, None, :]
        if window is not None:
            allowed &= distance < window
        return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)[:, None]

    def _inverse(self, total: int) -> Tensor:
        """Where each flat token's output lies among all blocks' outputs, one after the other."""
        flat = torch.cat([torch.where(b.asked, b.query, total).flatten() for b in self.blocks])
        inverse = torch.empty(total + 1, dtype=torch.long, device=flat.device)  # the extra cell takes the padding
        return inverse.scatter_(0, flat, torch.arange(len(flat), device=flat.device))[:-1]


def bucket(units: list[AttentionUnit]) -> list[list[AttentionUnit]]:
    """Units of similar size together, so that padding them to a common size costs at most `WASTE`. Deterministic."""
    out: list[list[AttentionUnit]] = []
    real = 0
    for unit in sorted(units, key=lambda u: u.size, reverse=True):
        queries, keys = unit.size
        if out:
            width, height = out[-1][0].size[0], max(keys, *(u.size[1] for u in out[-1]))
            padded = (len(out[-1]) + 1) * width * height
            if padded <= min(BLOCK_AREA, WASTE * (real + queries * keys)):
                out[-1].append(unit)
                real += queries * keys
                continue
        out.append([unit])
        real = queries * keys
    return out


def make(units: list[AttentionUnit], device: torch.device, *, causal: bool) -> AttentionBlock:
    """One block of units."""
    queries = [torch.arange(u.own.start, u.own.stop) for u in units]
    before = [torch.arange(u.before.start, u.before.stop) if u.before else q[:0] for u, q in zip(units, queries, strict=True)]
    keys = [torch.cat(pair) for pair in zip(before, queries, strict=True)]
    width, height = max(map(len, queries)), max(map(len, keys))
    query = torch.stack([pad(q, (0, width - len(q)), value=int(q[-1])) for q in queries])
    key = torch.stack([pad(k, (0, height - len(k)), value=int(k[0])) for k in keys])
    asked = torch.arange(width) < torch.tensor([[len(q)] for q in queries])
    valid = torch.arange(height) < torch.tensor([[len(k)] for k in keys])
    return AttentionBlock(query.to(device), key.to(device), asked.to(device), valid.to(device), causal)


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """softmax(scale q k + mask) v; causal when there is no mask."""
    grouped = q.shape[1] != k.shape[1]
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped)


def capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, softcap: float) -> Tensor:
    """softmax(softcap tanh(scale q k / softcap) + mask) v, which sdpa cannot do; causal when there is no mask."""
    repeat = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(repeat, dim=1) for x in (k, v))
    score = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    score = softcap * torch.tanh(score / softcap)
    if mask is None:
        future = torch.ones(score.shape[-2:], dtype=torch.bool, device=q.device).triu_(1)
        score = score.masked_fill(future, -torch.inf)
    else:
        score = score + mask
    return torch.softmax(score, dim=-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(q.dtype) @ v
