"""Single rated answers: the reward is what the policy's log-ratio and a learned value of the prompt add up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from evenhand.core import k_answers
from evenhand.objectives.parts import masked_sum, metric, owners, present, scored_weight
from evenhand.objectives.registry import objective
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms


@objective("direct_reward")
@dataclass(frozen=True, kw_only=True)
class DirectReward:
    """`core.k_answers.direct_reward`, averaged over the rated answers of a prompt, then over prompts.

    V is the value network's at the state before an answer's first counted token. An answer without a score counts nowhere.
    """

    reads: ClassVar[frozenset[Head]] = frozenset({Head.LOGP, Head.VALUE})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SCORE, Need.REF_LOGP})
    tau: float = 0.1

    def _weight(self, batch: Batch) -> Tensor:
        """1 over the number of a prompt's rated answers, for each of them [N]."""
        rated = scored_weight(batch)
        owner = owners(batch)
        total = rated.new_zeros(len(batch.layout.prompts)).index_add(0, owner, rated)
        return rated / total[owner].clamp(min=1e-9)

    def denominators(self, batch: Batch) -> Tensor:
        return self._weight(batch).sum().reshape(1)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        mask = batch.completion_mask
        ratio = masked_sum(present(out.logp) - present(batch.ref_logp), mask)
        first = mask.float().argmax(-1, keepdim=True)
        value = present(out.value).gather(-1, first)[:, 0].to(ratio.dtype)
        reward, weight = present(batch.score).to(ratio.dtype).nan_to_num(0.0), self._weight(batch).to(ratio.dtype)
        loss = k_answers.direct_reward(ratio, reward, value, tau=self.tau)
        metrics = {"ratio": metric(ratio, weight), "value": metric(value, weight), "residual": metric(reward - value, weight)}
        return Terms((Term("direct_reward", loss, weight),), metrics)
