"""Where the decoder's attention meets transformers: the registered function, and what a model asks of it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from evenhand.models.attention_rule import HARMLESS, AttentionRule

NAME = "evenhand_decode"
PROBE = "evenhand_decode_probe"
KNOWN = HARMLESS | {"dropout", "is_causal", "scaling", "softcap"}
"""Keywords that `attend` knows, or need not: dropout is off, and a decoder is causal."""


class Attends(Protocol):
    """Keeps k and v of the tokens fed, [1, K, T, D], and attends with q [1, H, T, D] -> [1, T, H, D]."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor: ...


ACTIVE: ContextVar[Attends] = ContextVar("the cache that attention reads and writes")
# Passed beside the model, not through its keyword arguments: several architectures do not hand those on to attention.


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function transformers calls. Which other keywords a model passes was looked at once, by `problem_with`."""
    rule = AttentionRule(scale=scaling, window=sliding_window, softcap=softcap)
    return ACTIVE.get().attend(cast(int, module.layer_idx), query, key, value, rule), None


def register() -> None:
    """Makes `NAME` known to transformers. Safe to repeat. It has no mask function: transformers then builds no masks."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


@dataclass
class _Seen:
    """What one forward pass asked for: windows as the masks and as attention heard of them; keywords with a value."""

    calls: int = 0
    masked: set[int] = field(default_factory=set)
    attended: set[int] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def problem_with(hf: Any) -> str | None:
    """Why this model's attention cannot be replaced by `attend`, or None. Runs three tokens through it.

    A window that only the masks know of would be lost, and a short comparison of logits would not notice.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    if not getattr(hf, "_supports_attention_backend", False):
        return "its attention cannot be replaced"
    seen = _Seen()

    def watch(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **named: Any) -> tuple[Tensor, None]:
        window = named.pop("sliding_window", None)
        seen.calls += 1
        seen.unknown |= set() if mask is None else {"a mask of its own"}
        seen.attended |= set() if window is None else {window}
        seen.unknown |= {k for k, v in named.items() if v is not None} - KNOWN
        return value.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3]), None

    def mask(*_: Any, local_size: int | None = None, **__: Any) -> None:
        seen.masked |= set() if local_size is None else {local_size}

    AttentionInterface.register(PROBE, watch)
    AttentionMaskInterface.register(PROBE, mask)
    before, hf.config._attn_implementation = hf.config._attn_implementation, PROBE
    try:
        hf(input_ids=torch.zeros(1, 3, dtype=torch.long, device=hf.device), use_cache=False)
    finally:
        hf.config._attn_implementation = before
    if not seen.calls:
        return "its layers do not look their attention up"
    if seen.unknown:
        return f"its attention uses {', '.join(sorted(seen.unknown))}"
    if seen.masked != seen.attended:
        return f"its attention is not told its windows (masks {sorted(seen.masked)}, attention {sorted(seen.attended)})"
    return None


def causal(q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
    """Causal attention of right-padded prompts [p, heads, l, D]; padding comes after every real query, so needs no mask."""
    length, grouped = q.shape[2], q.shape[1] != k.shape[1]
    hidden: Tensor | None = None
    if rule.softcap is not None or (rule.window is not None and rule.window < length):
        slot = torch.arange(length, device=q.device)
        distance = slot[:, None] - slot
        hidden = distance < 0
        if rule.window is not None:
            hidden |= distance >= rule.window
    if rule.softcap is None:
        seen = None if hidden is None else ~hidden
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=hidden is None, scale=rule.scale_for(q.shape[-1]), enable_gqa=grouped
        )
    assert hidden is not None, "a soft cap is masked by hand"
    folded = q.reshape(q.shape[0], k.shape[1], -1, length, q.shape[3])
    scores = capped(torch.matmul(folded * rule.scale_for(q.shape[-1]), k.unsqueeze(2).mT), rule.softcap)
    scores = scores.masked_fill_(hidden, -torch.inf)
    return torch.matmul(softmax(scores), v.unsqueeze(2)).flatten(1, 2)


def softmax(scores: Tensor) -> Tensor:
    """Over the last axis, in float32 at least, as transformers does; in the scores' own precision again."""
    return torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


def capped(scores: Tensor, softcap: float) -> Tensor:
    """`softcap * tanh(scores / softcap)`"""
    return torch.tanh(scores / softcap) * softcap
