"""Policy gradients: one objective whose coordinates are the surrogate, the reduction, and what is added to the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from evenhand.core import corrections, kl, policy, surrogates
from evenhand.errors import UserError, did_you_mean, one_of
from evenhand.objectives.chosen_tokens import over_the_step
from evenhand.objectives.likelihood import reduction
from evenhand.objectives.parts import counted, metric, present
from evenhand.objectives.registry import objective
from evenhand.objectives.surrogates import SURROGATES, SurrogateInput
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms, Weighted

KL_ESTIMATORS = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}
"""Of log-probs; `exact` is read from the model instead (`Head.KL`), `k3_ratio` is k3 under the ratio to the rollout's weights."""


@objective("policy_gradient")
@dataclass(frozen=True, kw_only=True)
class PolicyGradient:
    """Surrogate of `core.policy`, reduced over the whole step, plus a KL and an entropy term in the loss.

    `reduce` is token_mean, sequence_mean, sequence_sum or `constant:L`. `kl` multiplies the mean of `kl_estimator` under the
    same reduction (k3: GRPO's; its gradient on-policy is that of KL(ref || policy), see core.kl; k3_ratio: ratio * k3,
    differentiated through the ratio, with the gradient of each token's KL(policy || ref) off-policy too; exact: the sum over
    the vocabulary at every sampled state). `value` weighs the value head's clipped squared error. On-policy (no old_logp in the
    batch) the ratio is 1 and the gradient that of REINFORCE.

    When the sampler is not the trainer, `importance` > 0 is the largest weight of a `correction` of `core.corrections` and
    `importance_low` the least; without a largest one (1e9) PPO's clip under it is decoupled PPO (Hilton et al. 2021,
    arXiv:2110.00641). `off_policy_mask` > 0 leaves bad answers out that the policy has left by so many nats per token. Both act
    on the surrogate alone. `top_entropy` > 0 is the share of the step's tokens that it acts on: those of the highest entropy.
    """

    surrogate: str = "clipped"
    parameters: Mapping[str, float] = field(default_factory=dict)
    reduce: str = "sequence_mean"
    kl: float = 0.0
    kl_estimator: str = "k3"
    entropy: float = 0.0
    importance: float = 0.0
    correction: str = "truncate"
    importance_low: float = 0.0
    off_policy_mask: float = 0.0
    top_entropy: float = 0.0
    value: float = 0.0
    value_clip: float = 0.2

    def __post_init__(self) -> None:
        if self.kl_estimator not in (known := (*KL_ESTIMATORS, "k3_ratio", "exact")):
            raise UserError(
                f"unknown estimator '{self.kl_estimator}'", where="kl_estimator", fix=did_you_mean(self.kl_estimator, known)
            )
        one_of("correction", self.correction, corrections.CORRECTIONS, where="correction")
        if SURROGATES[self.surrogate].per_sequence and self.correction not in ("truncate", *corrections.PER_SEQUENCE):
            why = "its loss is one number per answer, which has no tokens to weigh"
            fix = f"use `correction: {corrections.PER_SEQUENCE[1]}`"
            raise UserError(f"'{self.correction}' under '{self.surrogate}'", where="correction", why=why, fix=fix)

    @property
    def reads(self) -> frozenset[Head]:
        entropy = {Head.ENTROPY} if self.entropy or self.top_entropy else set()
        value = {Head.VALUE} if self.value else set()
        divergence = {Head.KL} if self.kl and self.kl_estimator == "exact" else set()
        return frozenset({Head.LOGP} | entropy | value | divergence)

    @property
    def needs(self) -> frozenset[Need]:
        reference = {Need.REF_LOGP} if self.kl and self.kl_estimator != "exact" else set()
        value = {Need.VALUE} if self.value else set()
        importance = {Need.BEHAVIOUR_LOGP} if self.importance or self.off_policy_mask else set()
        old = {Need.OLD_LOGP} if self.kl and self.kl_estimator == "k3_ratio" else set()
        spec = SURROGATES[self.surrogate]
        chosen = {Need.STATISTICS} if spec.choose or self.top_entropy else set()
        return frozenset({Need.ADVANTAGE} | reference | value | importance | old | chosen) | spec.needs

    @property
    def skips_zero_advantage(self) -> bool:
        """True when a completion with zero advantage has exactly zero gradient, so that it need not be run."""
        return not (self.kl or self.entropy or self.value or SURROGATES[self.surrogate].choose)

    def _surrogate_weight(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        if SURROGATES[self.surrogate].per_sequence:
            rows = mask.any(-1, keepdim=True)
            return rows, rows.sum()
        return reduction(self.reduce, mask)

    def denominators(self, batch: Batch) -> Tensor:
        mask = counted(batch)
        shares = [self._surrogate_weight(mask)[1]]
        shares += [reduction(self.reduce, mask)[1]] * ((self.kl > 0) + (self.entropy > 0))
        shares += [reduction("token_mean", mask)[1]] * (self.value > 0)
        return torch.stack([s.float() for s in shares])

    def prepare(self, batches: Sequence[Batch], outs: Sequence[ModelOut]) -> list[Batch]:
        """The tokens of the whole step that the surrogate chooses, and those of the highest entropy, as statistics [N, C]."""
        steps = [self._step(out, batch) for out, batch in zip(outs, batches, strict=True)]
        found: dict[str, list[Tensor]] = {}
        if (choose := SURROGATES[self.surrogate].choose) is not None:
            rule = lambda *columns: choose(*columns, **self.parameters)  # noqa: E731
            columns = [[s.logp for s in steps], [s.advantage for s in steps]]
            found["chosen"] = over_the_step(batches, [s.mask for s in steps], columns, rule, drawn=True)
        if self.top_entropy:
            share = lambda entropy: surrogates.largest(entropy, self.top_entropy)  # noqa: E731
            entropy = [present(out.entropy) for out in outs]
            found["top_entropy"] = over_the_step(batches, [s.mask for s in steps], [entropy], share)
        each = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
        return [replace(b, statistics={**b.statistics, **new}) for b, new in zip(batches, each, strict=True)]

    def _step(self, out: ModelOut, batch: Batch) -> SurrogateInput:
        mask = counted(batch)
        logp = torch.where(mask, present(out.logp), present(out.logp).new_zeros(()))
        old = logp.detach() if batch.old_logp is None else torch.where(mask, batch.old_logp, 0.0)
        behaviour = old if batch.behaviour_logp is None else torch.where(mask, batch.behaviour_logp, 0.0)
        chosen = batch.statistics.get("chosen", torch.zeros_like(mask))
        given = torch.zeros_like(mask[:, :1]) if batch.given is None else (batch.given > 0)[:, None]
        return SurrogateInput(logp, old, behaviour, present(batch.advantage), mask, chosen, given)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        step = self._step(out, batch)
        mask, logp, old = step.mask, step.logp, step.old_logp
        value = SURROGATES[self.surrogate].function(step, **self.parameters)
        terms = [Term(self.surrogate, value, self._weight(step, batch).to(value.dtype))]
        metrics = {"ratio": metric((logp - old).exp(), mask)} if batch.old_logp is not None else {}
        metrics |= self._watched(batch, logp.detach(), mask)
        terms += self._added_terms(out, batch, logp, old, mask)
        if batch.ref_logp is not None:
            metrics["kl_token"] = metric(kl.k3(logp.detach(), batch.ref_logp), mask)
        return Terms(tuple(terms), metrics)

    def _watched(self, batch: Batch, logp: Tensor, mask: Tensor) -> dict[str, Weighted]:
        """For the monitor alone: the share of tokens that the clip cuts off, and, on-policy, the mean ratio to the sampler's."""
        found = {}
        if batch.old_logp is not None and SURROGATES[self.surrogate].clips_tokens:
            ratio = policy.ratio(logp, torch.where(mask, batch.old_logp, 0.0))
            outside = (ratio < 1 - self.parameters["low"]) | (ratio > 1 + self.parameters["high"])
            found["watched/clipped"] = metric(outside.float(), mask)
        if batch.old_logp is None and batch.behaviour_logp is not None:
            found["watched/ratio"] = metric(policy.ratio(logp, torch.where(mask, batch.behaviour_logp, 0.0)), mask)
        return found

    def _divergence(self, out: ModelOut, batch: Batch, logp: Tensor, old: Tensor, mask: Tensor) -> Tensor:
        if self.kl_estimator == "exact":
            return torch.where(mask, present(out.kl), 0.0)
        ref = torch.where(mask, present(batch.ref_logp), 0.0)
        if self.kl_estimator == "k3_ratio":
            return policy.ratio(logp, old) * kl.k3(logp, ref)
        return KL_ESTIMATORS[self.kl_estimator](logp, ref)

    def _weight(self, step: SurrogateInput, batch: Batch) -> Tensor:
        """The surrogate's weight: its share in the reduction, times what corrects for the sampler and what is left out."""
        weight = self._surrogate_weight(step.mask)[0]
        if self.importance:
            bounds = {"low": self.importance_low, "high": self.importance}
            weight = weight * self.importance_weight(step.old_logp, step.behaviour_logp, step.mask, **bounds)
        if self.off_policy_mask:
            told = (step.logp, step.behaviour_logp, step.advantage, step.mask)
            weight = weight * corrections.off_policy(*told, threshold=self.off_policy_mask)
        return weight * batch.statistics["top_entropy"] if self.top_entropy else weight

    def importance_weight(self, old_logp: Tensor, behaviour_logp: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
        """The weight [N, C] or [N, 1] that `correction` gives for a sampler unlike the trainer, within these bounds."""
        whole = self.correction == "truncate" and SURROGATES[self.surrogate].per_sequence
        function = corrections.CORRECTIONS["truncate_sequence" if whole else self.correction]
        return function(old_logp, behaviour_logp, mask, low=low, high=high)

    def _added_terms(self, out: ModelOut, batch: Batch, logp: Tensor, old: Tensor, mask: Tensor) -> list[Term]:
        weight = reduction(self.reduce, mask)[0].to(logp.dtype)
        terms = []
        if self.kl > 0:
            terms.append(Term("kl", self.kl * self._divergence(out, batch, logp, old, mask), weight))
        if self.entropy > 0:
            terms.append(Term("entropy", -self.entropy * torch.where(mask, present(out.entropy), 0.0), weight))
        if self.value > 0:
            error = policy.value_loss(present(out.value), present(batch.value), present(batch.returns), clip=self.value_clip)
            error = torch.where(mask, error, 0.0)
            terms.append(Term("value", self.value * error, reduction("token_mean", mask)[0].to(logp.dtype)))
        return terms
