"""The load-balancing loss of a mixture of experts, beside whatever a method minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from evenhand.models.routers import balance, row_tokens
from evenhand.objectives.combined import Combined
from evenhand.protocols import Objective
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms, Weighted

SHARE = "router/share"


@dataclass(frozen=True, kw_only=True)
class RouterBalance:
    """E sum_e f_e P_e: f_e the share of tokens that expert e served, P_e its mean router probability, both over all layers and
    over all rows of the step that are run for a gradient (prompts count in each of their rows).

    f is a statistic of the whole step, so that neither value nor gradient depends on how the step is cut; it has no gradient.
    With one micro-batch this is transformers' `load_balancing_loss_func` on padded rows.
    """

    reads: ClassVar[frozenset[Head]] = frozenset({Head.EXPERTS})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.STATISTICS})

    def denominators(self, batch: Batch) -> Tensor:
        tokens = 0 if batch.denominator_only else row_tokens(batch.layout)
        return torch.tensor([tokens], dtype=torch.float32, device=batch.ids.device)

    def prepare(self, batches: Sequence[Batch], outs: Sequence[ModelOut]) -> list[Batch]:
        run = [(b, o.experts[0]) for b, o in zip(batches, outs, strict=True) if o.experts is not None and not b.denominator_only]
        if not run:
            return list(batches)
        tokens = torch.stack([self.denominators(b) for b, _ in run]).sum()
        share = torch.stack([chosen for _, chosen in run]).sum(0) / tokens
        return [replace(b, statistics={**b.statistics, SHARE: share}) for b in batches]

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        count = self.denominators(batch)
        if batch.denominator_only or out.experts is None:
            return Terms((Term("router_balance", count.new_zeros(()), count.new_zeros(())),))
        value = balance(out.experts, batch.statistics[SHARE])
        metrics = {"router_balance": Weighted(value.detach(), count[0])}
        return Terms((Term("router_balance", value, torch.ones_like(value)),), metrics)


def balanced(objective: Objective, weight: float) -> Combined:
    """`objective` + `weight` times the balance of the routers."""
    return Combined(objectives=(objective, RouterBalance()), coefficients=(1.0, weight))
