"""Reward models from comparisons: Bradley-Terry, with margins and centring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from evenhand.core import preference
from evenhand.objectives.pair_fields import pair_weight, sides
from evenhand.objectives.parts import metric, order_metrics, present, scored_weight
from evenhand.objectives.registry import objective
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms


@objective("correctness")
@dataclass(frozen=True, kw_only=True)
class Correctness:
    """`p nls(s) + (1 - p) nls(-s)` on scores `[N]`: the cross-entropy of a label p, 1 or 0 or between, averaged over answers.

    The score is read at the last token and is the logit of being right. An answer without a label counts nowhere. Source: Cobbe
    et al. 2021 (arXiv:2110.14168), whose verifier also learns at every token before it. Gradient in s: sigmoid(s) - p."""

    reads: ClassVar[frozenset[Head]] = frozenset({Head.SCORE})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SCORE})

    def denominators(self, batch: Batch) -> Tensor:
        return scored_weight(batch).sum().reshape(1)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        score, weight = present(out.score), scored_weight(batch)
        label = present(batch.score).nan_to_num(0.0).to(score.dtype)
        value = label * softplus(-score) + (1 - label) * softplus(score)
        metrics = {"accuracy": metric(((score > 0) == (label > 0.5)).float(), weight), "score": metric(score, weight)}
        return Terms((Term("correctness", value, weight.to(value.dtype)),), metrics)


@objective("bradley_terry")
@dataclass(frozen=True, kw_only=True)
class BradleyTerry:
    """-log sigmoid(r_chosen - r_rejected - margin) + centring * (r_chosen + r_rejected)^2, averaged over pairs.

    `margin` is what the data ask of the pair (TRL's column `margin`; 0 without one), plus `margin_scale` times the pair's rating
    gap (graded data); 0 ignores the gap. A ranking of k answers gives all its pairs,
    each weighted 1 / (number of pairs), in one forward pass. `centring` fixes the free additive constant (0.01 is usual).
    Sources: Ouyang et al. 2022 eq. 1; Llama 2 eq. 2 (margin). Gradient wrt r_chosen and r_rejected sums to 0 without centring.
    """

    reads: ClassVar[frozenset[Head]] = frozenset({Head.SCORE})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS})
    margin_scale: float = 0.0
    centring: float = 0.0

    def denominators(self, batch: Batch) -> Tensor:
        total = pair_weight(batch, torch.float32).sum().reshape(1)
        return total.repeat(2)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        chosen, rejected = sides(present(out.score), batch)
        margin = self.margin_scale * batch.margin.to(chosen.dtype) if batch.margin is not None else 0.0
        if batch.pair_margin is not None:
            margin = margin + batch.pair_margin.to(chosen.dtype)
        weight = pair_weight(batch, chosen.dtype)
        value = preference.bradley_terry(chosen, rejected, margin=margin)
        gap = (chosen - rejected).detach()
        metrics = order_metrics(gap, weight) | {"score": metric(torch.stack([chosen, rejected]).mean(0), weight)}
        centring = self.centring * preference.centring(chosen, rejected)
        return Terms((Term("bradley_terry", value, weight), Term("centring", centring, weight)), metrics)
