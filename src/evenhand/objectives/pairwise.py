"""Losses on pairs of completions: the DPO family. One objective; the loss is a name and its hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from evenhand.core import preference
from evenhand.objectives.pair_fields import FIELDS, pair_weight, per_completion, sides
from evenhand.objectives.parts import masked_sum, metric, order_metrics, present
from evenhand.objectives.registry import objective
from evenhand.registry import Registry
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms, Weighted

F = TypeVar("F", bound=Callable[..., Tensor])


@dataclass(frozen=True, slots=True)
class PairLoss:
    """A pure pair loss and what it eats: `per` completion sums or token means [B], or tokens [B, C], with or without a reference.

    `fields` names the further keyword tensors that it receives, see `pair_fields.FIELDS`.
    """

    function: Callable[..., Tensor]
    per: str = "sum"
    reference: bool = True
    fields: tuple[str, ...] = ()

    @property
    def needs(self) -> frozenset[Need]:
        reference = {Need.REF_LOGP} if self.reference else set()
        return frozenset({Need.PAIRS} | reference).union(*(FIELDS[f].needs for f in self.fields))

    @property
    def reads(self) -> frozenset[Head]:
        return frozenset({Head.LOGP}).union(*(FIELDS[f].reads for f in self.fields))

    def __call__(self, out: ModelOut, batch: Batch, parameters: Mapping[str, Any]) -> Tensor:
        """The loss of every pair [B], unreduced."""
        inputs = [*sides(per_completion(present(out.logp), batch, self.per), batch)]
        if self.reference:
            inputs += sides(per_completion(present(batch.ref_logp), batch, self.per), batch)
        given = {name: tensor for f in self.fields for name, tensor in FIELDS[f].read(out, batch).items()}
        return self.function(*inputs, **given, **parameters)


PAIR_LOSSES = Registry[PairLoss]("pair loss", named_by=("loss",))


def pair_loss(
    name: str = "", *, per: str = "sum", reference: bool = True, fields: tuple[str, ...] = (), revision: int = 0
) -> Callable[[F], F]:
    """Decorator: the function below is a loss of pairs; see `PairLoss` for what it is given, and `registry.revisions`."""

    def add(function: F) -> F:
        made = PairLoss(function, per=per, reference=reference, fields=fields)
        PAIR_LOSSES.register(name or function.__name__, revision=revision)(made)
        return function

    return add


pair_loss()(preference.dpo)
pair_loss()(preference.cdpo)
pair_loss()(preference.robust)
pair_loss()(preference.ipo)
pair_loss(per="mean")(preference.ipo_mean)
pair_loss()(preference.hinge)
pair_loss(fields=("lengths",))(preference.length_desensitised)
pair_loss(reference=False)(preference.slic)
pair_loss(reference=False)(preference.local)
pair_loss(per="mean", reference=False)(preference.simpo)
pair_loss(per="mean", reference=False)(preference.orpo)


def pair_metrics(out: ModelOut, batch: Batch, weight: Tensor, loss: PairLoss | None = None) -> dict[str, Weighted]:
    """Accuracy and margin as the loss sees the two answers: of log-ratios where it has a reference, per token where it takes
    means; and log-probs of both whole answers (nats). Without a loss: of whole answers, against the reference if there is one."""
    logp, per = present(out.logp).detach(), "mean" if loss is not None and loss.per == "mean" else "sum"
    seen = per_completion(logp, batch, per)
    if loss.reference if loss is not None else batch.ref_logp is not None:
        seen = seen - per_completion(present(batch.ref_logp), batch, per)
    chosen, rejected = sides(masked_sum(logp, batch.completion_mask), batch)
    told = {"chosen_logp": metric(chosen, weight), "rejected_logp": metric(rejected, weight)}
    return order_metrics(torch.sub(*sides(seen, batch)), weight) | told


@objective("pairwise")
@dataclass(frozen=True, kw_only=True)
class Pairwise:
    """A named pair loss of `core.preference`, averaged over pairs (weighted when the data has pair weights).

    `loss` is one of PAIR_LOSSES, `parameters` its keyword hyper-parameters. Loss inputs are log-probs over counted tokens,
    summed or averaged per completion as the loss wants them.
    """

    loss: str = "dpo"
    parameters: Mapping[str, float] = field(default_factory=lambda: {"beta": 0.1})

    @property
    def reads(self) -> frozenset[Head]:
        return PAIR_LOSSES[self.loss].reads

    @property
    def needs(self) -> frozenset[Need]:
        return PAIR_LOSSES[self.loss].needs

    def denominators(self, batch: Batch) -> Tensor:
        return pair_weight(batch, torch.float32).sum().reshape(1)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        weight = pair_weight(batch, present(out.logp).dtype)
        value = PAIR_LOSSES[self.loss](out, batch, self.parameters)
        return Terms((Term(self.loss, value, weight),), pair_metrics(out, batch, weight, PAIR_LOSSES[self.loss]))


@objective("transport")
@dataclass(frozen=True, kw_only=True)
class Transport:
    """AOT: the sorted chosen log-ratios must dominate the sorted rejected ones, over the whole optimizer step.

    `form` is unpaired (quantiles of chosen against rejected log-ratios) or paired (policy margins against reference
    margins). The sort is taken in `prepare`, over every micro-batch; the surrogate's gradient equals the gradient through
    the global sort. Pairs with weights are weighted samples of the two distributions. Source: Melnyk et al. 2024. With one
    pair per step both forms reduce to DPO.
    """

    reads: ClassVar[frozenset[Head]] = frozenset({Head.LOGP})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS, Need.REF_LOGP, Need.STATISTICS})
    form: str = "unpaired"
    beta: float = 0.1

    def denominators(self, batch: Batch) -> Tensor:
        return pair_weight(batch, torch.float32).sum().reshape(1)

    def prepare(self, batches: Sequence[Batch], outs: Sequence[ModelOut]) -> list[Batch]:
        sides = [self._inputs(present(out.logp), b) for out, b in zip(outs, batches, strict=True)]
        chosen, rejected, ref_chosen, ref_rejected = (torch.cat(parts) for parts in zip(*sides, strict=True))
        weight = torch.cat([pair_weight(b, chosen.dtype) for b in batches])
        found = preference.aot_of_pairs(chosen, rejected, ref_chosen, ref_rejected, weight, form=self.form, beta=self.beta)
        sizes = [len(present(b.pairs)) for b in batches]
        parts = zip(batches, *(x.split(sizes) for x in found), strict=True)
        return [replace(b, statistics={**b.statistics, "aot": v, "aot_chosen": c, "aot_rejected": r}) for b, v, c, r in parts]

    def _inputs(self, logp: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        return (
            *sides(masked_sum(logp, batch.completion_mask), batch),
            *sides(masked_sum(present(batch.ref_logp), batch.completion_mask), batch),
        )

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        chosen, rejected = sides(masked_sum(present(out.logp), batch.completion_mask), batch)
        stats = batch.statistics
        surrogate = stats["aot_chosen"] * chosen + stats["aot_rejected"] * rejected
        value = stats["aot"] + surrogate - surrogate.detach()  # the step's value, with the gradient of the global sort
        metrics = pair_metrics(out, batch, pair_weight(batch, value.dtype))
        return Terms((Term("aot", value, torch.ones_like(value)),), metrics)
