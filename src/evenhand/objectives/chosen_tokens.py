"""Tokens that a rule picks from a whole optimizer step, whatever micro-batches it was cut into."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from evenhand.data.batch import completion_ids, pad_rows
from evenhand.seeding import rng
from evenhand.types import Batch


def over_the_step(
    batches: Sequence[Batch],
    masks: Sequence[Tensor],
    columns: Sequence[Sequence[Tensor]],
    rule: Callable[..., Tensor],
    *,
    drawn: bool = False,
) -> list[Tensor]:
    """What `rule(*columns)` picks of all counted tokens [T] of the step, as masks [N, C], one per batch.

    `columns` hold [N, C] or [N, 1] per batch; with `drawn` the rule is given random numbers in [0, 1) after them.
    """
    wide = [[of.expand(mask.shape) for of, mask in zip(column, masks, strict=True)] for column in columns]
    if drawn:
        wide.append([uniform(batch).to(mask.device) for batch, mask in zip(batches, masks, strict=True)])
    flat = [torch.cat([of[mask] for of, mask in zip(column, masks, strict=True)]) for column in wide]
    parts = rule(*flat).split([int(mask.sum()) for mask in masks])
    return [torch.zeros_like(mask).masked_scatter(mask, part) for mask, part in zip(masks, parts, strict=True)]


def uniform(batch: Batch) -> Tensor:
    """Random numbers [N, C], keyed by each completion's tokens and by its log-prob as sampled, and by nothing else: neither the
    cut nor a resume changes them, and no state has to be kept. The same answer of a later policy has others. The log-prob counts
    in hundredths of a nat: its last digits are another processor's, or another rank's, business."""
    ids, width = completion_ids(batch).tolist(), batch.completion_mask.shape[1]
    told = [[]] * len(ids) if batch.behaviour_logp is None else batch.behaviour_logp.tolist()
    spans = batch.layout.completions
    rows = [
        rng("tokens", *i[: s.length], round(100 * sum(b[: s.length]))).random(s.length).tolist()
        for i, b, s in zip(ids, told, spans, strict=True)
    ]
    return pad_rows(rows, torch.float64, width=width)
