"""Maximum likelihood: SFT, RAFT's fine-tuning step, and the likelihood term of RPO and ORPO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from evenhand.core import likelihood, reduce
from evenhand.errors import UserError, did_you_mean, one_of
from evenhand.objectives import gold
from evenhand.objectives.pair_fields import pair_weight
from evenhand.objectives.parts import metric, present, row_weight
from evenhand.objectives.registry import objective
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms

REDUCTIONS = {
    "token_mean": reduce.token_mean,
    "sequence_mean": reduce.sequence_mean,
    "sequence_sum": reduce.sequence_sum,
}


WEIGHTINGS: Mapping[str, Callable[[Tensor], Tensor]] = {"even": likelihood.even, "probability": likelihood.by_probability}


def reduction(name: str, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(weight [N, C], denominator []) of a named reduction; `constant:L` divides each sequence's sum by L tokens."""
    if name.startswith("constant:"):
        return reduce.constant(mask, int(name.split(":")[1]))
    return REDUCTIONS[name](mask)


@objective("likelihood")
@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Negative log-likelihood of completions, -logp, reduced over counted tokens.

    `reduce`: token_mean (every token alike) or sequence_mean (every completion alike); equal when lengths are equal.
    `on`: all completions, or the chosen ones of the batch's pairs, each as often as its pairs weigh: once in a plain pair, in a
    ranking by its share of the group's pairs, under a soft label (p, 1 - p) either answer by its probability; or the rewarded
    ones, whose score is above 0; or the gold ones (`objectives.gold`). `weighting`: what a token weighs, of `core.likelihood`.
    Zero-weight completions count nowhere. Reduces to: cross-entropy over completion tokens.
    """

    reads: ClassVar[frozenset[Head]] = frozenset({Head.LOGP})
    reduce: str = "token_mean"
    on: str = "all"
    weighting: str = "even"

    def __post_init__(self) -> None:
        one_of("weighting", self.weighting, WEIGHTINGS, where="likelihood")
        name, _, length = self.reduce.partition(":")
        if name not in REDUCTIONS and not (name == "constant" and length.isdigit()):
            raise UserError(f"unknown reduction '{self.reduce}'", where="reduce", fix=did_you_mean(self.reduce, REDUCTIONS))

    @property
    def needs(self) -> frozenset[Need]:
        known = {"chosen": {Need.PAIRS}, "rewarded": {Need.SCORE}, "gold": {Need.PAIRS, Need.SCORE}}
        return frozenset(known.get(self.on, ()))

    def _counts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tokens that count [N, C], and how often each completion does [N]."""
        often = torch.ones(batch.completions, device=batch.completion_mask.device)
        if self.on == "chosen":
            often = torch.zeros_like(often).index_add(0, present(batch.pairs)[:, 0], pair_weight(batch, often.dtype))
        if self.on == "gold":
            often = gold.often(batch, often.dtype)
        if self.on == "rewarded":
            often = (present(batch.score) > 0).to(often.dtype)
        if batch.weight is not None:
            often = often * (batch.weight != 0)
        return batch.completion_mask & (often > 0)[:, None], often

    def denominators(self, batch: Batch) -> Tensor:
        mask, often = self._counts(batch)
        if self.reduce == "token_mean":
            return (mask * often[:, None]).sum().reshape(1)
        rows = mask.any(-1)
        return (reduction(self.reduce, mask)[1] * (rows * often).sum() / rows.sum().clamp(min=1)).reshape(1)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        mask, often = self._counts(batch)
        logp = present(out.logp)
        weight = (reduction(self.reduce, mask)[0] * often[:, None]).to(logp.dtype)
        if batch.weight is not None:
            weight = weight * row_weight(batch, logp)[:, None]
        counted = torch.where(mask, logp, logp.new_zeros(()))
        value = WEIGHTINGS[self.weighting](counted)
        return Terms((Term("nll", value, weight),), {"nll": metric(-counted, mask * often[:, None])})
