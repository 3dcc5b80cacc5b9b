"""Attention over a packed prompt tree: prompts causal on themselves, completions on their whole prompt and causal on themselves.

Registered with transformers under `NAME`. A model called with the keyword `tree=TreeAttention(...)` attends along the tree;
called without it (generation, plain rows) it behaves as transformers' own sdpa attention. The layout travels with the call, not in
a global, so that recomputation under gradient checkpointing sees the layout of its own forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from evenhand.types import Layout, Span

NAME = "evenhand_tree"
WASTE = 1.25
"""Spans share a padded block while it is at most this much larger than they are."""
BLOCK_AREA = 1 << 22
"""Query-key pairs in one block at most, unless a single span needs more: bounds memory."""


@dataclass(frozen=True)
class Block:
    """Spans of similar size, padded to one size: `query` [B, Lq] and `key` [B, Lk] are flat positions.

    Padding repeats a span's last query and first key; `valid` [B, Lk] is False on padded keys. `causal` says that plain causal
    order is all the mask there is (the block holds prompts, whose padding lies in the future of every real token).
    """

    query: Tensor
    key: Tensor
    valid: Tensor
    causal: bool


class TreeAttention:
    """The attention pattern of one batch on one device. Built once per batch, used by every layer."""

    def __init__(self, layout: Layout, positions: Tensor) -> None:
        self.layout, self.positions = layout, positions
        self._masks: dict[tuple[int | None, torch.dtype], list[Tensor | None]] = {}

    @cached_property
    def longest(self) -> int:
        """The longest root-to-leaf path, in tokens."""
        path = (self.layout.prompts[g].length + c.length for c, g in zip(self.layout.completions, self.layout.owner, strict=True))
        return max(path)

    @cached_property
    def blocks(self) -> list[Block]:
        device = self.positions.device
        prompts = [((p,), (p,)) for p in self.layout.prompts]
        owners = zip(self.layout.completions, self.layout.owner, strict=True)
        completions = [((c,), (self.layout.prompts[g], c)) for c, g in owners]
        made = [_block(units, True) for units in bucket(prompts)] + [_block(units, False) for units in bucket(completions)]
        return [Block(b.query.to(device), b.key.to(device), b.valid.to(device), b.causal) for b in made]

    @cached_property
    def inverse(self) -> Tensor:
        """Where each flat token's output lies among all blocks' outputs, one after the other."""
        flat = torch.cat([b.query.flatten() for b in self.blocks])
        inverse = torch.empty(self.layout.total, dtype=torch.long, device=flat.device)
        return inverse.scatter_(0, flat, torch.arange(len(flat), device=flat.device))

    def masks(self, window: int | None, dtype: torch.dtype) -> list[Tensor | None]:
        """An additive mask [B, 1, Lq, Lk] per block, or None where plain causal order is enough. A window counts positions."""
        if window is not None and window >= self.longest:
            window = None
        if (window, dtype) not in self._masks:
            self._masks[window, dtype] = [self._mask(b, window, dtype) for b in self.blocks]
        return self._masks[window, dtype]

    def _mask(self, block: Block, window: int | None, dtype: torch.dtype) -> Tensor | None:
        if block.causal and window is None:
            return None
        distance = self.positions[block.query][:, :, None] - self.positions[block.key][:, None, :]
        allowed = (distance >= 0) & block.valid[:, None, :]
        if window is not None:
            allowed &= distance < window
        return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)[:, None]


Unit = tuple[tuple[Span, ...], tuple[Span, ...]]
"""Queries and keys of one attention problem, as spans of the flat sequence."""


def bucket(units: list[Unit]) -> list[list[Unit]]:
    """Group units of similar size, so that padding them to a common size costs at most `WASTE`. Deterministic."""
    order = sorted(units, key=_extent, reverse=True)
    out: list[list[Unit]] = []
    real = 0
    for unit in order:
        q, k = _extent(unit)
        if out:
            head = [_extent(u) for u in out[-1]]
            width, height = max(e[0] for e in head), max(max(e[1] for e in head), k)
            padded = (len(head) + 1) * width * height
            if padded <= WASTE * (real + q * k) and padded <= BLOCK_AREA:
                out[-1].append(unit)
                real += q * k
                continue
        out.append([unit])
        real = q * k
    return out


def _extent(unit: Unit) -> tuple[int, int]:
    return sum(s.length for s in unit[0]), sum(s.length for s in unit[1])


def _block(units: list[Unit], causal: bool) -> Block:
    queries = [torch.cat([torch.arange(s.start, s.stop) for s in u[0]]) for u in units]
    keys = [torch.cat([torch.arange(s.start, s.stop) for s in u[1]]) for u in units]
    width, height = max(map(len, queries)), max(map(len, keys))
    query = torch.stack([pad(q, (0, width - len(q)), value=int(q[-1])) for q in queries])
    key = torch.stack([pad(k, (0, height - len(k)), value=int(k[0])) for k in keys])
    valid = torch.arange(height) < torch.tensor([len(k) for k in keys])[:, None]
    return Block(query, key, valid, causal)


def tree_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tree: TreeAttention,
    *,
    scale: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """q [1, h, T, d], k and v [1, h_kv, T, d] -> [1, T, h, d]; grouped heads, windows (in positions) and soft-capping honoured."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [T, h, d]
    outs = []
    for block, mask in zip(tree.blocks, tree.masks(window, query.dtype), strict=True):
        args = (q[block.query].transpose(1, 2), k[block.key].transpose(1, 2), v[block.key].transpose(1, 2))
        out = _capped(*args, mask, scale, softcap) if softcap is not None else _plain(*args, mask, scale)
        outs.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(outs)[tree.inverse][None]


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    return scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def _capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, softcap: float) -> Tensor:
    """softmax(softcap tanh(q k / softcap) + mask) v, written out: sdpa has no capping."""
    repeat = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(repeat, dim=1) for x in (k, v))
    score = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    score = softcap * torch.tanh(score / softcap)
    if mask is None:
        future = torch.ones(score.shape[-2:], dtype=torch.bool, device=q.device).triu_(1)
        score = score.masked_fill(future, -torch.inf)
    else:
        score = score + mask
    return torch.softmax(score, dim=-1, dtype=torch.float32).to(q.dtype) @ v


class Unsupported(Exception):
    """This attention call has a feature the tree does not know; the model runs on padded rows instead."""


KNOWN = {"tree", "dropout", "scaling", "sliding_window", "softcap", "is_causal"}
HARMLESS = {"position_ids", "position_embeddings", "use_cache", "output_attentions", "output_hidden_states", "cache_position"}


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    tree: TreeAttention | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function transformers calls. Dropout is always off."""
    if tree is None:
        return _without_tree(module, query, key, value, attention_mask, **kwargs)
    unknown = {k for k, v in kwargs.items() if v is not None and k not in KNOWN | HARMLESS}
    if unknown or kwargs.get("is_causal") is False:
        raise Unsupported(f"attention of {type(module).__name__} uses {', '.join(sorted(unknown)) or 'a non-causal pattern'}")
    if (seen := _watching.get()) is not None:
        seen.tree_calls += 1
        seen.attended |= {kwargs["sliding_window"]} if kwargs.get("sliding_window") else set()
    scale, window, softcap = kwargs.get("scaling"), kwargs.get("sliding_window"), kwargs.get("softcap")
    return tree_attention(query, key, value, tree, scale=scale, window=window, softcap=softcap), None


def _without_tree(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    softcap = kwargs.get("softcap")
    if softcap is None:
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    if mask is not None:
        lowest = torch.finfo(query.dtype).min  # finite: rows of padding may see nothing at all
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill_(~mask, lowest)
    out = _capped(query, key, value, mask, kwargs.get("scaling"), softcap)
    return out.transpose(1, 2).contiguous(), None


@dataclass
class Seen:
    """What passed through attention while it was watched: windows as the masks and as the tree heard of them."""

    tree_calls: int = 0
    masked: set[int] = field(default_factory=set)
    attended: set[int] = field(default_factory=set)


_watching: ContextVar[Seen | None] = ContextVar("watching", default=None)


@contextmanager
def watch() -> Iterator[Seen]:
    """Record what passes through attention, for the self-check."""
    token = _watching.set(Seen())
    try:
        yield _watching.get()
    finally:
        _watching.reset(token)


def _mask(*args: Any, local_size: int | None = None, **kwargs: Any) -> Tensor | None:
    """The masks of sdpa, for calls without a tree."""
    from transformers.masking_utils import sdpa_mask

    if (seen := _watching.get()) is not None and local_size is not None:
        seen.masked.add(local_size)
    return sdpa_mask(*args, local_size=local_size, **kwargs)


def register() -> None:
    """Make `NAME` known to transformers. Safe to repeat."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, _mask)
