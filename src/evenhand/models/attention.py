"""Where tree attention meets transformers.

Registered under `NAME`. A model called with the keyword `tree=Tree(...)` attends along the tree; called without it (generation,
plain rows) it behaves as transformers' own sdpa attention. The layout travels with the call, not in a global, so that
recomputation under gradient checkpointing sees the layout of its own forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.models.attention_rule import HARMLESS, AttentionRule
from evenhand.models.tree_attention import Tree
from evenhand.models.tree_attention_blocks import capped

NAME = "evenhand_tree"
KNOWN = HARMLESS | {"dropout", "scaling", "sliding_window", "softcap", "is_causal"}
"""Keywords whose meaning the tree honours (dropout by being off)."""
UNKNOWN = -1
"""Stands for the window of a mask that did not come from here."""


class Unsupported(Exception):
    """This attention call has a feature the tree does not know; the model runs on padded rows instead."""


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    tree: Tree | None = None,
    **named: Any,
) -> tuple[Tensor, None]:
    """The function transformers calls: q [B, h, T, d], k and v [B, h_kv, T, d] -> [B, T, h, d]."""
    if tree is None:
        if (seen := _watching.get()) is not None:
            seen.masked.append(seen.windows.get(_memory(attention_mask), UNKNOWN))
        return _without_tree(module, query, key, value, attention_mask, **named)
    unknown = sorted(k for k, v in named.items() if v is not None and k not in KNOWN)
    if unknown or named.get("is_causal") is False:
        raise Unsupported(f"{type(module).__name__} uses {', '.join(unknown) or 'attention that is not causal'}")
    if attention_mask is not None and attention_mask.numel() != 1:  # one cell: what `tree_states` gave, passed on
        raise Unsupported(f"{type(module).__name__} makes a mask of its own")
    rule = AttentionRule(scale=named.get("scaling"), window=named.get("sliding_window"), softcap=named.get("softcap"))
    if (seen := _watching.get()) is not None:
        seen.attended.append(rule.window)
    device = query.device.type
    if torch.is_autocast_enabled(device):  # a processor's flash kernel is slower in half precision than in single
        dtype = torch.float32 if device == "cpu" else torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    return tree.attend(query, key, value, rule), None


def _without_tree(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **named: Any
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    softcap = named.get("softcap")
    if softcap is None:
        return sdpa_attention_forward(module, query, key, value, mask, **named)
    if mask is not None:
        lowest = torch.finfo(query.dtype).min  # finite: rows of padding may see nothing at all
        mask = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill_(~mask, lowest)
    out = capped(query, key, value, mask, named.get("scaling"), softcap)
    return out.transpose(1, 2).contiguous(), None


@dataclass
class Seen:
    """What passed through attention while it was watched.

    `masked` are the windows in the masks of plain calls, `attended` those that calls with a tree were told, layer by layer.
    """

    masked: list[int | None] = field(default_factory=list)
    attended: list[int | None] = field(default_factory=list)
    windows: dict[int, int | None] = field(default_factory=dict)
    masks: list[Tensor] = field(default_factory=list)


_watching: ContextVar[Seen | None] = ContextVar("watching", default=None)


@contextmanager
def watch() -> Iterator[Seen]:
    """Record what passes through attention, for the self-check."""
    seen = Seen()
    token = _watching.set(seen)
    try:
        yield seen
    finally:
        _watching.reset(token)


def _mask(*args: Any, local_size: int | None = None, **named: Any) -> Tensor | None:
    """The masks of sdpa, for calls without a tree."""
    from transformers.masking_utils import sdpa_mask

    seen = _watching.get()
    named["local_size"] = local_size
    if seen is None:
        return sdpa_mask(*args, **named)
    mask = sdpa_mask(*args, **{**named, "allow_is_causal_skip": False})
    if mask is not None:
        seen.masks.append(mask)  # kept alive, so that its memory stays its own
    seen.windows[_memory(mask)] = local_size
    return mask


def _memory(mask: Tensor | None) -> int:
    """Where a mask lies: the same for a slice of it, which some models pass on."""
    return 0 if mask is None else mask.untyped_storage().data_ptr()


def register() -> None:
    """Make `NAME` known to transformers. Safe to repeat."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, _mask)
