"""Training examples: tokenised groups with the per-completion fields an objective needs, and how they become micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from evenhand.core import selection
from evenhand.data.batch import pack, split_by_tokens, split_evenly
from evenhand.data.convert import MARGIN, SOFT
from evenhand.types import Batch, Group, TokenGroup

TOKEN_FIELDS = ("ref_logp", "old_logp", "behaviour_logp", "value", "returns", "token_advantage", "uniform")
"""One float per token of each completion."""
SCALAR_FIELDS = ("advantage", "score", "weight", "optimism", "given")
"""One float per completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A tokenised group and its fields: `per_token[name][i]` [len(completion i)], `per_completion[name][i]` a float.

    `pairs` index this group's completions as (chosen, rejected), with a rating gap and a weight each; `pair_margin` is what the
    data ask of a pair's scores (TRL's column `margin`), if they do. `ratings[i]` are completion i's by each attribute, `shown[i]`
    the prompt under which a teacher reads it, where that is not the item's own.
    """

    tokens: TokenGroup
    per_token: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    per_completion: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    pairs: tuple[tuple[int, int], ...] = ()
    margin: tuple[float, ...] = ()
    pair_weight: tuple[float, ...] = ()
    pair_margin: tuple[float, ...] = ()
    ratings: tuple[tuple[float, ...], ...] = ()
    shown: tuple[tuple[int, ...], ...] = ()
    denominator_only: bool = False

    def only(self, keep: Sequence[int], **changes: Any) -> Example:
        """The item with the completions `keep`, in that order, its group cut alike; pairs would point elsewhere, and go."""
        tokens = replace(
            self.tokens,
            completions=tuple(self.tokens.completions[i] for i in keep),
            group=cut_group(self.tokens.group, keep),
        )
        per_token = {k: tuple(v[i] for i in keep) for k, v in self.per_token.items()}
        per_completion = {k: tuple(v[i] for i in keep) for k, v in self.per_completion.items()}
        ratings = tuple(self.ratings[i] for i in keep) if self.ratings else ()
        shown = tuple(self.shown[i] for i in keep) if self.shown else ()
        cut = replace(self, tokens=tokens, per_token=per_token, per_completion=per_completion, ratings=ratings, shown=shown)
        return replace(cut, pairs=(), margin=(), pair_weight=(), pair_margin=(), **changes)


def cut_group(group: Group, keep: Sequence[int]) -> Group:
    """The group with the completions `keep`, their scores and parts."""
    return replace(
        group,
        completions=tuple(group.completions[i] for i in keep),
        scores=tuple(group.scores[i] for i in keep),
        parts={k: tuple(v[i] for i in keep) for k, v in group.parts.items()},
    )


def with_pairs(item: Example) -> Example:
    """The item with all pairs of its group's scores, each weighted 1 / (number of pairs); ties give none.

    A pair with a soft label (p, 1 - p) counts both ways, weighted p and 1 - p: its loss is the cross-entropy with the label.
    """
    if SOFT in item.tokens.group.parts:
        first, second = item.tokens.group.parts[SOFT]
        return replace(item, pairs=((0, 1), (1, 0)), margin=(first - second, second - first), pair_weight=(first, second))
    scores = torch.tensor([item.tokens.group.scores], dtype=torch.float64)
    pairs, weight = selection.all_pairs(scores)
    gap = scores[0][pairs[:, 0]] - scores[0][pairs[:, 1]]
    named = tuple((i, j) for i, j in pairs.tolist())
    asked = item.tokens.group.parts.get(MARGIN)
    margins = tuple(asked[i] for i, _ in named) if asked else ()
    return replace(item, pairs=named, margin=tuple(gap.tolist()), pair_weight=tuple(weight.tolist()), pair_margin=margins)


def split_zero_advantage(item: Example) -> list[Example]:
    """The completions with a non-zero advantage, and those with zero advantage as a denominator-only item. An exact saving."""
    return live_alone(item, [i for i, a in enumerate(item.per_completion["advantage"]) if a != 0.0])


def live_alone(item: Example, live: Sequence[int]) -> list[Example]:
    """The completions `live`, in that order, and the others as a denominator-only item."""
    dead = [i for i in range(len(item.tokens.completions)) if i not in live]
    parts = [item.only(live)] if live else []
    return parts + ([item.only(dead, denominator_only=True, shown=())] if dead else [])


def as_shown(item: Example) -> list[TokenGroup]:
    """The item's completions, in their order, under the prompts that a teacher reads; neighbours with one prompt share it."""
    runs = groupby(zip(item.shown, item.tokens.completions, strict=True), key=lambda pair: pair[0])
    return [replace(item.tokens, prompt=prompt, completions=tuple(c for _, c in pairs)) for prompt, pairs in runs]


def micro_batches(items: Sequence[Example], tokens_per_microbatch: int, ranks: int = 1) -> list[Batch]:
    """Pack the items of one step into micro-batches under a token budget, live items and denominator-only ones apart."""
    batches = []
    for denominator_only in (False, True):
        chosen = [i for i in items if i.denominator_only == denominator_only]
        for indices in pieces([i.tokens.size for i in chosen], tokens_per_microbatch, ranks):
            batches.append(assemble([chosen[i] for i in indices]))
    return batches


def pieces(sizes: Sequence[int], budget: int, ranks: int) -> list[list[int]]:
    """Indices of items in micro-batches of at most `budget` tokens; for several ranks as many, or a multiple, of equal size."""
    return split_by_tokens(sizes, budget) if ranks == 1 else split_evenly(sizes, budget, ranks)


def assemble(items: Sequence[Example]) -> Batch:
    """One packed batch of items, with every field that all of them have."""
    batch = pack([i.tokens for i in items])
    width = batch.completion_mask.shape[1]
    fields: dict[str, Any] = {"denominator_only": items[0].denominator_only}
    for name in TOKEN_FIELDS:
        if all(name in i.per_token for i in items):
            rows = [row for i in items for row in i.per_token[name]]
            fields["advantage" if name == "token_advantage" else name] = _pad(rows, width)
    for name in SCALAR_FIELDS:
        if all(name in i.per_completion for i in items):
            values = torch.tensor([v for i in items for v in i.per_completion[name]], dtype=torch.float32)
            fields[name] = values[:, None] if name == "advantage" else values
    if all(i.ratings for i in items):
        fields["ratings"] = torch.tensor([row for i in items for row in i.ratings], dtype=torch.float32)
    if all(i.shown for i in items):
        fields["shown"] = pack([group for i in items for group in as_shown(i)])
    if any(i.pairs for i in items):
        fields |= _pairs(items)
    return replace(batch, **fields)


def _pad(rows: Sequence[Tensor], width: int) -> Tensor:
    padded = pad_sequence(list(rows), batch_first=True)
    return torch.nn.functional.pad(padded, (0, width - padded.shape[1]))


def _pairs(items: Sequence[Example]) -> dict[str, Tensor]:
    pairs, offset = [], 0
    for item in items:
        pairs += [(offset + i, offset + j) for i, j in item.pairs]
        offset += len(item.tokens.completions)
    asked = [i.pair_margin or (0.0,) * len(i.pairs) for i in items]
    fields = {"pair_margin": torch.tensor([m for row in asked for m in row])} if any(i.pair_margin for i in items) else {}
    return {
        "pairs": torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        "margin": torch.tensor([m for i in items for m in i.margin]),
        "pair_weight": torch.tensor([w for i in items for w in i.pair_weight]),
        **fields,
    }


def unpad(values: Tensor, batch: Batch) -> list[Tensor]:
    """Rows of [N, C] cut to each completion's length, on the CPU, in fp32."""
    values = values.detach().float().cpu()
    return [values[i, : span.length].clone() for i, span in enumerate(batch.layout.completions)]
