"""A term that any loss of pairs on rollouts can take: answers that are known already are made less likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from evenhand.objectives.parts import masked_sum, metric, present
from evenhand.objectives.registry import objective
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms


@objective("optimism")
@dataclass(frozen=True, kw_only=True)
class Optimism:
    """`log pi(y') - log ref(y')`, averaged over the answers y' that the batch marks (`optimism`), beside a loss of pairs.

    Its gradient is exactly 1 per nat of a marked answer, and nothing bounds it below: the coefficient must be tiny. Sources:
    XPO (arXiv:2405.21046, algorithm 1), SELM (arXiv:2405.19332).
    """

    reads: ClassVar[frozenset[Head]] = frozenset({Head.LOGP})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.OPTIMISM, Need.REF_LOGP})

    def denominators(self, batch: Batch) -> Tensor:
        return present(batch.optimism).float().sum().reshape(1)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        ratio = masked_sum(present(out.logp) - present(batch.ref_logp), batch.completion_mask)
        weight = present(batch.optimism).to(ratio.dtype)
        return Terms((Term("optimism", ratio, weight),), {"optimism_ratio": metric(ratio, weight)})
