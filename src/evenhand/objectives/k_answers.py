"""Objectives on all k rated answers of a prompt at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from evenhand.core import k_answers
from evenhand.objectives.parts import masked_sum, metric, owners, present, row_weight
from evenhand.objectives.registry import objective
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms

GROUP_LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "infonca": k_answers.infonca, "nca": k_answers.nca, "qrpo": k_answers.qrpo,
}  # fmt: skip


@objective("rated_groups")
@dataclass(frozen=True, kw_only=True)
class RatedGroups:
    """A loss of `core.k_answers` over the scored answers of each prompt, averaged over prompts that have one."""

    reads: ClassVar[frozenset[Head]] = frozenset({Head.LOGP})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SCORE, Need.REF_LOGP})
    loss: str = "infonca"
    parameters: Mapping[str, float] = field(default_factory=lambda: {"beta": 0.01, "alpha": 0.1})

    def denominators(self, batch: Batch) -> Tensor:
        return torch.tensor([float(len(self._scored(batch)[1].unique()))], device=batch.completion_mask.device)

    def _scored(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """True [N] for answers with a score, and the prompts of those."""
        known = ~present(batch.score).isnan()
        return known, owners(batch)[known]

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        known, owner = self._scored(batch)
        ratio = masked_sum(present(out.logp) - present(batch.ref_logp), batch.completion_mask)[known]
        value = GROUP_LOSSES[self.loss](ratio, present(batch.score)[known].to(ratio.dtype), owner, **self.parameters)
        return Terms((Term(self.loss, value, torch.ones_like(value)),), {"ratio": metric(ratio)})


@objective("reward_regression")
@dataclass(frozen=True, kw_only=True)
class RewardRegression:
    """`(beta log(pi / ref) - A)^2` of `core.k_answers`, averaged over completions: A is the reward less its soft value."""

    reads: ClassVar[frozenset[Head]] = frozenset({Head.LOGP})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.ADVANTAGE, Need.REF_LOGP})
    beta: float = 1e-3

    def denominators(self, batch: Batch) -> Tensor:
        return row_weight(batch, present(batch.advantage)).sum().reshape(1)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        ratio = masked_sum(present(out.logp) - present(batch.ref_logp), batch.completion_mask)
        value = k_answers.reward_regression(ratio, present(batch.advantage)[:, 0], beta=self.beta)
        return Terms((Term("reward_regression", value, row_weight(batch, ratio)),), {"ratio": metric(ratio)})
