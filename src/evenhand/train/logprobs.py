"""Passes without gradients: log-probs and values of items under some model, row by row, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evenhand.errors import UserError
from evenhand.protocols import Model
from evenhand.train.examples import Example, assemble, pieces, unpad
from evenhand.train.ranks import ONE, Ranks, in_order
from evenhand.types import Head

Rows = list[tuple[Tensor, ...]]
"""One tuple per item, one 1-D tensor per completion."""

NAMES = {
    Head.LOGP: "log-prob", Head.VALUE: "value", Head.SCORE: "score", Head.ENTROPY: "entropy", Head.KL: "KL to the reference",
    Head.COLLISION: "sum of squared probabilities",
}  # fmt: skip


@torch.no_grad()
def read(
    model: Model,
    items: Sequence[Example],
    heads: frozenset[Head],
    *,
    tokens_per_microbatch: int,
    temperature: float,
    device: torch.device | str,
    ranks: Ranks = ONE,
) -> dict[Head, Rows]:
    """What `model` says at every completion token of every item, per head; each of `ranks` asks it for a share of them.

    Raises UserError, naming the prompt, where that is not finite.
    """
    out: dict[Head, Rows] = {h: [()] * len(items) for h in heads}
    cut = pieces([i.tokens.size for i in items], tokens_per_microbatch, ranks.size)
    read_here: dict[int, dict[Head, Rows]] = {}
    for turn in ranks.turns([sum(items[i].tokens.size for i in indices) for indices in cut]):
        with turn.running():
            found = _read(model, [items[i] for i in cut[turn.index]], heads, temperature, device)
        read_here |= {turn.index: found} if turn.share else {}
    for indices, found in zip(cut, in_order(ranks, read_here), strict=True):
        for head in heads:
            for i, row in zip(indices, found[head], strict=True):
                out[head][i] = row
    return out


def _read(
    model: Model, items: Sequence[Example], heads: frozenset[Head], temperature: float, device: torch.device | str
) -> dict[Head, Rows]:
    """The same of the items of one micro-batch."""
    batch = assemble(items).to(device)
    result = model(batch, heads, temperature=temperature)
    out: dict[Head, Rows] = {h: [] for h in heads}
    for head in heads:
        rows, at = unpad(getattr(result, head.value), batch), 0
        for item in items:
            count = len(item.tokens.completions)
            out[head].append(tuple(rows[at : at + count]))
            at += count
            _check(model, item, head, out[head][-1])
    return out


def _check(model: Model, item: Example, head: Head, rows: tuple[Tensor, ...]) -> None:
    """One value that is not finite would spread over its whole step, and every prompt after it."""
    if all(bool(row.isfinite().all()) for row in rows):
        return
    group = item.tokens.group
    precisions = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})
    if "float16" in precisions:
        why, fix = "weights in float16 overflow above 65504", "set `model.dtype` to bfloat16 or float32"
    else:
        why = f"its weights ({', '.join(precisions)}) hold inf or NaN, or lead to them"
        fix = "check the model with `evenhand doctor`; if its training has begun, lower the learning rate"
    where = f"prompt {group.prompt.id}, {group.prompt.text[-60:]!r}"
    raise UserError(f"the model's {NAMES[head]} is not finite", where=where, why=why, fix=fix)


def total(row: Tensor, mask: Sequence[bool]) -> float:
    """Sum of a completion's row over its counted tokens."""
    return float(row[torch.tensor(mask, dtype=torch.bool)].sum())
