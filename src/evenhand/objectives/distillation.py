"""Distillation: how far the policy's whole distribution is from a teacher's, at every token of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from evenhand.objectives.likelihood import reduction
from evenhand.objectives.parts import counted, metric, present
from evenhand.objectives.registry import objective
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms


@objective("distillation")
@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The divergence that `Head.KL` measures, reduced over counted tokens; which one is the method's `divergence`.

    The prefix is held fixed: the gradient moves what is said after it and not the chance of getting there. The vocabulary is
    read a few rows at a time, and no logits are kept."""

    reads: ClassVar[frozenset[Head]] = frozenset({Head.KL})
    needs: ClassVar[frozenset[Need]] = frozenset()
    reduce: str = "token_mean"

    def denominators(self, batch: Batch) -> Tensor:
        return reduction(self.reduce, counted(batch))[1].float().reshape(1)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        mask = counted(batch)
        value = torch.where(mask, present(out.kl), 0.0)
        weight = reduction(self.reduce, mask)[0].to(value.dtype)
        return Terms((Term("distillation", value, weight),), {"divergence": metric(value, mask)})
