"""Passes without gradients: log-probs and values of items under some model, row by row, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evenhand.data.batch import split_by_tokens
from evenhand.train.items import Item, assemble, unpad
from evenhand.types import Head

Rows = list[tuple[Tensor, ...]]
"""One tuple per item, one 1-D tensor per completion."""


@torch.no_grad()
def read(
    model: nn.Module,
    items: Sequence[Item],
    heads: frozenset[Head],
    *,
    tokens_per_microbatch: int,
    temperature: float,
    device: torch.device | str,
) -> dict[Head, Rows]:
    """What `model` says at every completion token of every item, per head."""
    out: dict[Head, Rows] = {h: [()] * len(items) for h in heads}
    for indices in split_by_tokens([i.tokens.size for i in items], tokens_per_microbatch):
        batch = assemble([items[i] for i in indices]).to(device)
        result = model(batch, heads, temperature=temperature)
        for head in heads:
            rows, at = unpad(getattr(result, head.value), batch), 0
            for i in indices:
                count = len(items[i].tokens.completions)
                out[head][i] = tuple(rows[at : at + count])
                at += count
    return out


def total(row: Tensor, mask: Sequence[bool]) -> float:
    """Sum of a completion's row over its counted tokens."""
    return float(row[torch.tensor(mask, dtype=torch.bool)].sum())
