"""Losses on single answers with a good-or-bad label: KTO, BCO, and APO without pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from evenhand.core import preference, unpaired
from evenhand.objectives.parts import masked_sum, metric, present, scored_weight
from evenhand.objectives.registry import objective
from evenhand.protocols import CARRIED
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms

LABEL_LOSSES = {"bco": unpaired.bco, "apo_zero": unpaired.apo_zero}


@objective("kto")
@dataclass(frozen=True, kw_only=True)
class Kto:
    """Kahneman-Tversky optimisation: w * (1 - sigmoid(+-beta * (log-ratio - z0))), averaged over completions.

    Label: score > 0 is desirable. z0 = max(0, mean log-ratio of mismatched prompt-completion pairs of the whole step),
    without gradient; the source adds the mismatched pairs as denominator-only rows with NaN score.
    Source: Ethayarajh et al. 2024, eqs. 7-8. At policy == reference every loss is half its weight.
    """

    reads: ClassVar[frozenset[Head]] = frozenset({Head.LOGP})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SCORE, Need.REF_LOGP, Need.MISMATCHED, Need.STATISTICS})
    beta: float = 0.1
    weight_desirable: float = 1.0
    weight_undesirable: float = 1.0

    def denominators(self, batch: Batch) -> Tensor:
        return scored_weight(batch).sum().reshape(1)

    def prepare(self, batches: Sequence[Batch], outs: Sequence[ModelOut]) -> list[Batch]:
        mismatched = torch.cat([self._ratio(o, b)[present(b.score).isnan()] for o, b in zip(outs, batches, strict=True)])
        raw = mismatched.mean() if len(mismatched) else torch.zeros((), device=present(batches[0].score).device)
        return [replace(b, statistics={**b.statistics, "z0": raw.clamp(min=0.0), "z0_raw": raw}) for b in batches]

    def _ratio(self, out: ModelOut, batch: Batch) -> Tensor:
        return masked_sum(present(out.logp) - present(batch.ref_logp), batch.completion_mask)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        mask = batch.completion_mask
        desirable = present(batch.score).nan_to_num(0.0) > 0
        value = preference.kto(
            masked_sum(present(out.logp), mask),
            masked_sum(present(batch.ref_logp), mask),
            desirable,
            batch.statistics["z0"],
            beta=self.beta,
            weight_desirable=self.weight_desirable,
            weight_undesirable=self.weight_undesirable,
        )
        weight = scored_weight(batch).to(value.dtype)
        ratio = self._ratio(out, batch).detach()
        metrics = {
            "desirable_ratio": metric(ratio, weight * desirable),
            "undesirable_ratio": metric(ratio, weight * ~desirable),
            "z0": metric(batch.statistics["z0"].reshape(1)),
            "z0_raw": metric(batch.statistics["z0_raw"].reshape(1)),
        }
        return Terms((Term("kto", value, weight),), metrics)


@objective("labelled")
@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A classifier of single labelled answers by their implicit reward: a loss of LABEL_LOSSES, averaged over completions.

    Label: score > 0 is desirable. `shift` is running (the mean reward beta * log-ratio of all labelled answers so far, with this
    step's, which a checkpoint holds) or none. No gradient flows through it.
    """

    reads: ClassVar[frozenset[Head]] = frozenset({Head.LOGP})
    loss: str = "bco"
    shift: str = "running"
    beta: float = 0.01

    @property
    def needs(self) -> frozenset[Need]:
        statistics = {Need.STATISTICS} if self.shift == "running" else set()
        return frozenset({Need.SCORE, Need.REF_LOGP} | statistics)

    def denominators(self, batch: Batch) -> Tensor:
        return scored_weight(batch).sum().reshape(1)

    def prepare(self, batches: Sequence[Batch], outs: Sequence[ModelOut]) -> list[Batch]:
        """`carried/reward` and `carried/answers`: the sum of the rewards so far, and how many they were."""
        weight = [scored_weight(b) for b in batches]
        reward = torch.stack([(self._reward(o, b) * w).sum() for o, b, w in zip(outs, batches, weight, strict=True)]).sum()
        totals = {"reward": reward, "answers": torch.stack([w.sum() for w in weight]).sum().to(reward.dtype)}
        totals = {CARRIED + name: t + batches[0].statistics.get(CARRIED + name, 0.0) for name, t in totals.items()}
        mean = totals[CARRIED + "reward"] / totals[CARRIED + "answers"].clamp(min=1.0)
        return [replace(b, statistics={**b.statistics, **totals, "shift": mean}) for b in batches]

    def _reward(self, out: ModelOut, batch: Batch) -> Tensor:
        return self.beta * masked_sum(present(out.logp) - present(batch.ref_logp), batch.completion_mask)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        reward = self._reward(out, batch)
        shift = batch.statistics["shift"] if self.shift == "running" else reward.new_zeros(())
        desirable = present(batch.score).nan_to_num(0.0) > 0
        value = LABEL_LOSSES[self.loss](reward, desirable, shift)
        weight = scored_weight(batch).to(value.dtype)
        metrics = {
            "desirable_reward": metric(reward, weight * desirable),
            "undesirable_reward": metric(reward, weight * ~desirable),
            "shift": metric(shift.reshape(1)),
        }
        return Terms((Term(self.loss, value, weight),), metrics)
