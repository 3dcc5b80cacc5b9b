"""The best of three or more answers as the gold one: imitated, and in no pair. Of two answers the chosen one is the gold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from evenhand.objectives.pair_fields import pair_weight
from evenhand.objectives.parts import owners, present
from evenhand.objectives.registry import objective
from evenhand.protocols import Objective
from evenhand.types import Batch, Head, ModelOut, Need, Terms


def best_of_three(batch: Batch) -> Tensor:
    """True [N] for the first best answer of every prompt with three or more scored ones."""
    owner, score = owners(batch), present(batch.score)
    prompts, count = len(batch.layout.prompts), len(score)
    known = torch.where(score.isnan(), -torch.inf, score)
    top = known.new_full((prompts,), -torch.inf).scatter_reduce(0, owner, known, "amax")
    place = torch.arange(count, device=owner.device)
    tops = torch.where(known == top[owner], place, count)
    first = place.new_full((prompts,), count).scatter_reduce(0, owner, tops, "amin")
    scored = torch.zeros_like(first).index_add(0, owner, (~score.isnan()).to(first.dtype))
    return (place == first[owner]) & (scored >= 3)[owner]


def often(batch: Batch, dtype: torch.dtype) -> Tensor:
    """How often each completion is a gold one [N]: the best of three or more once, of a pair the chosen one by its weight."""
    pairs, weight, best, owner = present(batch.pairs), pair_weight(batch, dtype), best_of_three(batch), owners(batch)
    alone = ~_of(best, owner, batch)[owner[pairs[:, 0]]]
    chosen = torch.zeros(len(owner), dtype=dtype, device=owner.device).index_add(0, pairs[:, 0], weight * alone)
    return chosen + best.to(dtype)


def _of(best: Tensor, owner: Tensor, batch: Batch) -> Tensor:
    """Which prompts have a best of three [P]."""
    found = torch.zeros(len(batch.layout.prompts), dtype=torch.long, device=owner.device)
    return found.index_add(0, owner, best.long()) > 0


def below_the_best(batch: Batch) -> Batch:
    """The batch without the pairs that a best of three is in; what they weighed goes to the other pairs of their prompt."""
    pairs, weight, best, owner = present(batch.pairs), pair_weight(batch, torch.float32), best_of_three(batch), owners(batch)
    kept, prompt = ~best[pairs].any(-1), owner[pairs[:, 0]]
    before, after = (
        torch.zeros(len(batch.layout.prompts), device=owner.device).index_add(0, prompt, w) for w in (weight, weight * kept)
    )
    weight = (weight * (before / after.clamp(min=1e-9))[prompt])[kept]
    cut = {name: value[kept] for name in ("margin", "pair_margin") if (value := getattr(batch, name)) is not None}
    return replace(batch, pairs=pairs[kept], pair_weight=weight, **cut)


@objective("below_the_best")
@dataclass(frozen=True, kw_only=True)
class BelowTheBest:
    """A loss of pairs on the answers below the best: of a ranking of three or more, the pairs without the gold answer.

    Plain pairs stay as they are. For losses that need no statistic of the whole step. Source: Saeidi et al. 2024
    (arXiv:2405.16681), whose rows name a gold answer beside a pair."""

    objective: Objective

    @property
    def reads(self) -> frozenset[Head]:
        return self.objective.reads

    @property
    def needs(self) -> frozenset[Need]:
        return self.objective.needs | {Need.SCORE}

    def denominators(self, batch: Batch) -> Tensor:
        return self.objective.denominators(below_the_best(batch))

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        return self.objective(out, below_the_best(batch))
