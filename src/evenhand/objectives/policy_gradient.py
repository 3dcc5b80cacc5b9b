"""Policy gradients: one objective whose coordinates are the surrogate, the reduction, and what is added to the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from evenhand.core import kl, policy
from evenhand.errors import UserError, did_you_mean
from evenhand.objectives.likelihood import reduction
from evenhand.objectives.parts import masked_sum, metric, present
from evenhand.objectives.registry import objective
from evenhand.registry import Registry
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms, Weighted

F = TypeVar("F", bound=Callable[..., Tensor])


@dataclass(frozen=True, slots=True)
class Step:
    """What a surrogate sees: log-probs [N, C] (current, at the rollout's weights, as sampled), advantage, mask."""

    logp: Tensor
    old_logp: Tensor
    behaviour_logp: Tensor
    advantage: Tensor
    mask: Tensor


def _per_sequence(advantage: Tensor) -> Tensor:
    """[N, 1] -> [N]; a token-level advantage has no meaning for a surrogate of whole completions."""
    if advantage.shape[-1] != 1:
        raise ValueError(f"a sequence surrogate needs one advantage per completion, got {list(advantage.shape)}")
    return advantage[:, 0]


@dataclass(frozen=True, slots=True)
class Surrogate:
    """`per_sequence` surrogates return one value per completion ([N, 1]); the reduction then counts completions.

    `clips_tokens` says that a token's ratio has no gradient outside [1 - low, 1 + high].
    """

    function: Callable[..., Tensor]
    per_sequence: bool = False
    clips_tokens: bool = False
    needs: frozenset[Need] = frozenset()


SURROGATES = Registry[Surrogate]("surrogate")
OLD = frozenset({Need.OLD_LOGP})


def surrogate(
    name: str = "", *, per_sequence: bool = False, clips_tokens: bool = False, needs: frozenset[Need] = frozenset()
) -> Callable[[F], F]:
    """Decorator: the function below turns a `Step` and its own keyword parameters into a surrogate loss [N, C] (or [N, 1])."""

    def add(function: F) -> F:
        found = Surrogate(function, per_sequence=per_sequence, clips_tokens=clips_tokens, needs=needs)
        SURROGATES.register(name or function.__name__)(found)
        return function

    return add


@surrogate("reinforce")
def _reinforce(s: Step) -> Tensor:
    return policy.reinforce(s.logp, s.advantage)


@surrogate("clipped", clips_tokens=True, needs=OLD)
def _clipped(s: Step, **p: float) -> Tensor:
    return policy.clipped(s.logp, s.old_logp, s.advantage, **p)


@surrogate("dual_clipped", clips_tokens=True, needs=OLD)
def _dual_clipped(s: Step, **p: float) -> Tensor:
    return policy.dual_clipped(s.logp, s.old_logp, s.advantage, **p)


@surrogate("sequence_clipped", per_sequence=True, needs=OLD)
def _sequence_clipped(s: Step, **p: float) -> Tensor:
    return policy.sequence_clipped(s.logp, s.old_logp, _per_sequence(s.advantage), s.mask, **p)[:, None]


@surrogate("gspo", needs=OLD)
def _gspo(s: Step, **p: float) -> Tensor:
    return policy.gspo(s.logp, s.old_logp, s.advantage, s.mask, **p)


@surrogate("cispo", needs=OLD)
def _cispo(s: Step, **p: float) -> Tensor:
    return policy.cispo(s.logp, s.old_logp, s.advantage, **p)


@surrogate("topr", per_sequence=True, needs=frozenset({Need.BEHAVIOUR_LOGP}))
def _topr(s: Step) -> Tensor:
    return policy.topr(masked_sum(s.logp, s.mask), masked_sum(s.behaviour_logp, s.mask), _per_sequence(s.advantage))[:, None]


KL_ESTIMATORS = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}
"""Of log-probs; `exact` is read from the model instead (`Head.KL`), `k3_ratio` is k3 under the ratio to the rollout's weights."""


@objective("policy_gradient")
@dataclass(frozen=True, kw_only=True)
class PolicyGradient:
    """Surrogate of `core.policy`, reduced over the whole step, plus a KL and an entropy term in the loss.

    `reduce` is token_mean, sequence_mean, sequence_sum or `constant:L`. `kl` multiplies the mean of `kl_estimator` under the
    same reduction (k3: GRPO's; its gradient on-policy is that of KL(ref || policy), see core.kl; k3_ratio: ratio * k3,
    differentiated through the ratio, with the gradient of each token's KL(policy || ref) off-policy too; exact: the sum over the
    vocabulary at every sampled state). `importance` caps exp(old - behaviour) per token when the sampler is not the trainer; it
    multiplies the surrogate alone; 0 is off. `value` weighs the value head's clipped squared error. On-policy (no old_logp in
    the batch) the ratio is 1 and the gradient that of REINFORCE.
    """

    surrogate: str = "clipped"
    parameters: Mapping[str, float] = field(default_factory=dict)
    reduce: str = "sequence_mean"
    kl: float = 0.0
    kl_estimator: str = "k3"
    entropy: float = 0.0
    importance: float = 0.0
    value: float = 0.0
    value_clip: float = 0.2

    def __post_init__(self) -> None:
        if self.kl_estimator not in (known := (*KL_ESTIMATORS, "k3_ratio", "exact")):
            raise UserError(
                f"unknown estimator '{self.kl_estimator}'", where="kl_estimator", fix=did_you_mean(self.kl_estimator, known)
            )

    @property
    def reads(self) -> frozenset[Head]:
        entropy = {Head.ENTROPY} if self.entropy else set()
        value = {Head.VALUE} if self.value else set()
        divergence = {Head.KL} if self.kl and self.kl_estimator == "exact" else set()
        return frozenset({Head.LOGP} | entropy | value | divergence)

    @property
    def needs(self) -> frozenset[Need]:
        reference = {Need.REF_LOGP} if self.kl and self.kl_estimator != "exact" else set()
        value = {Need.VALUE} if self.value else set()
        importance = {Need.BEHAVIOUR_LOGP} if self.importance else set()
        old = {Need.OLD_LOGP} if self.kl and self.kl_estimator == "k3_ratio" else set()
        return frozenset({Need.ADVANTAGE} | reference | value | importance | old) | SURROGATES[self.surrogate].needs

    @property
    def skips_zero_advantage(self) -> bool:
        """True when a completion with zero advantage has exactly zero gradient, so that it need not be run."""
        return not (self.kl or self.entropy or self.value)

    def _mask(self, batch: Batch) -> Tensor:
        if batch.weight is None:
            return batch.completion_mask
        return batch.completion_mask & (batch.weight != 0)[:, None]

    def _surrogate_weight(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        if SURROGATES[self.surrogate].per_sequence:
            rows = mask.any(-1, keepdim=True)
            return rows, rows.sum()
        return reduction(self.reduce, mask)

    def denominators(self, batch: Batch) -> Tensor:
        mask = self._mask(batch)
        shares = [self._surrogate_weight(mask)[1]]
        shares += [reduction(self.reduce, mask)[1]] * ((self.kl > 0) + (self.entropy > 0))
        shares += [reduction("token_mean", mask)[1]] * (self.value > 0)
        return torch.stack([s.float() for s in shares])

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        mask = self._mask(batch)
        logp = torch.where(mask, present(out.logp), present(out.logp).new_zeros(()))
        old = logp.detach() if batch.old_logp is None else torch.where(mask, batch.old_logp, 0.0)
        behaviour = old if batch.behaviour_logp is None else torch.where(mask, batch.behaviour_logp, 0.0)
        spec = SURROGATES[self.surrogate]
        value = spec.function(Step(logp, old, behaviour, present(batch.advantage), mask), **self.parameters)
        weight = self._surrogate_weight(mask)[0].to(value.dtype)
        if self.importance:
            weight = weight * self._importance(old, behaviour, mask)
        terms = [Term(self.surrogate, value, weight)]
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

    def _importance(self, old: Tensor, behaviour: Tensor, mask: Tensor) -> Tensor:
        if SURROGATES[self.surrogate].per_sequence:
            return policy.sequence_importance(old, behaviour, mask, cap=self.importance)[:, None]
        return policy.token_importance(old, behaviour, cap=self.importance)

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
