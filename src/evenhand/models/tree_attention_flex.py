"""Tree attention through FlexAttention: one compiled kernel over the flat sequence, for accelerators.

The kernel skips blocks of the [T, T] pattern that hold no allowed pair; the list of blocks is written down from the layout, so
that no [T, T] tensor ever exists.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from evenhand.data.batch import paths
from evenhand.types import Layout

BLOCK = 128
NARROWEST = 16
"""Numbers in a head below which there is no kernel."""


def knows(q: Tensor, v: Tensor) -> bool:
    """Whether there is a kernel for heads of this size."""
    return min(q.shape[-1], v.shape[-1]) >= NARROWEST


class FlexTree:
    """The pattern of one batch as block masks, one per window."""

    def __init__(self, layout: Layout, positions: Tensor) -> None:
        self.layout, self.positions = layout, positions
        group, leaf = labels(layout)
        self.group, self.leaf = group.to(positions.device), leaf.to(positions.device)
        self._masks: dict[int | None, BlockMask] = {}

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None, window: int | None, softcap: float | None
    ) -> Tensor:
        """q [1, h, T, d], k and v [1, h_kv, T, d] -> [1, T, h, d]."""
        out = _kernel(q.device.type)(
            q,
            k,
            v,
            score_mod=None if softcap is None else _capping(softcap, q.device),
            block_mask=self.mask(window),
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out.transpose(1, 2)

    def mask(self, window: int | None) -> BlockMask:
        if window not in self._masks:
            device = self.positions.device
            count, index = (x.to(device, non_blocking=True)[None, None] for x in block_lists(self.layout))
            total = self.layout.total
            rule = self._rule(window)
            self._masks[window] = BlockMask.from_kv_blocks(
                count, index, BLOCK_SIZE=BLOCK, mask_mod=rule, seq_lengths=(total, total)
            )
        return self._masks[window]

    def _rule(self, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """May query token q see key token k? The group's prompt, or its own completion; not the future, not beyond the window."""
        group, leaf, position = self.group, self.leaf, self.positions

        def allowed(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            related = (group[q] == group[k]) & ((leaf[k] == 0) | (leaf[k] == leaf[q]))
            distance = position[q] - position[k]
            seen = related & (distance >= 0)
            return seen if window is None else seen & (distance < window)

        return allowed


@lru_cache(maxsize=256)
def labels(layout: Layout) -> tuple[Tensor, Tensor]:
    """Per flat token: its group, and its completion (numbered from 1; 0 in a prompt)."""
    group, leaf = torch.zeros(layout.total, dtype=torch.int32), torch.zeros(layout.total, dtype=torch.int32)
    for number, span in enumerate(layout.prompts):
        group[span.start : span.stop] = number
    for number, (span, owner) in enumerate(zip(layout.completions, layout.owner, strict=True), start=1):
        group[span.start : span.stop] = owner
        leaf[span.start : span.stop] = number
    return group, leaf


@lru_cache(maxsize=256)
def block_lists(layout: Layout) -> tuple[Tensor, Tensor]:
    """For every block of queries: how many blocks of keys it may see [Q], and which [Q, K] (those first, ascending)."""
    size = -(-layout.total // BLOCK)
    seen = torch.zeros(size, size, dtype=torch.bool)
    pairs = [(s, s) for s in (*layout.prompts, *layout.completions)]
    pairs += [(completion, prompt) for prompt, completion in paths(layout)]
    for q, k in pairs:
        seen[q.start // BLOCK : (q.stop - 1) // BLOCK + 1, k.start // BLOCK : (k.stop - 1) // BLOCK + 1] = True
    seen.tril_()  # a key never lies after its query in the flat sequence
    index = torch.argsort(seen.int(), dim=1, descending=True, stable=True)
    return seen.sum(1, dtype=torch.int32), index.to(torch.int32)


@lru_cache(maxsize=8)
def _capping(softcap: float, device: torch.device) -> Callable[..., Tensor]:
    """The cap is a tensor: a number becomes a symbol under dynamic shapes, and the kernel cannot be traced with one."""
    cap = torch.tensor(softcap, device=device)

    def score_mod(score: Tensor, _batch: Tensor, _head: Tensor, _q: Tensor, _k: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return score_mod


KERNELS = 64
"""Variants that may be compiled in one process: each precision, head shape, window and soft cap, with and without gradients, is
one. Beyond the compiler's own limit of 8 it would run uncompiled, which writes down all [T, T] scores."""


@lru_cache(maxsize=2)
def _kernel(device: str) -> Callable[..., Tensor]:
    """Compiled on an accelerator; as it is (slow, for tests) on a processor, where the compiled kernel has no backward pass."""
    plain: Callable[..., Any] = flex_attention
    return plain if device == "cpu" else compiled()


def compiled(**options: Any) -> Callable[..., Tensor]:
    """One kernel for batches of any layout: `options` are torch.compile's."""
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, KERNELS)
    return torch.compile(flex_attention, dynamic=True, **options)
