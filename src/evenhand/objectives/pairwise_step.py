"""A pair loss under a rule that looks at the whole optimizer step: which pairs count for how much, and under which strength."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from evenhand.core import step_weights
from evenhand.objectives.pair_fields import pair_weight, per_completion, sides
from evenhand.objectives.pairwise import PAIR_LOSSES, pair_metrics
from evenhand.objectives.parts import present
from evenhand.objectives.registry import objective
from evenhand.protocols import CARRIED
from evenhand.registry import Registry
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms

F = TypeVar("F", bound=Callable[..., dict[str, Tensor]])


@dataclass(frozen=True, slots=True)
class PairStep:
    """All pairs of a step [B], without gradient: their loss, their log-ratio margin (nats) and that of length-means, policy and
    reference apart; a random number each where the rule needs one; what the last step carried."""

    loss: Tensor
    margin: Tensor
    mean_margin: Tensor
    ref_mean_margin: Tensor
    weight: Tensor
    carried: Mapping[str, Tensor]
    uniform: Tensor | None = None


@dataclass(frozen=True, slots=True)
class StepRule:
    """From a step to named tensors. `weight` [B] multiplies each pair's weight, and takes it out of the step where it is 0;
    `value` [] is reported as the step's loss, names that begin with CARRIED go on to the next step; all others [B] are keyword
    tensors of the loss."""

    function: Callable[..., dict[str, Tensor]]
    needs: frozenset[Need] = frozenset()
    steers: tuple[str, ...] = ()


STEP_RULES = Registry[StepRule]("step rule", named_by=("rule",))


def step_rule(*, needs: frozenset[Need] = frozenset(), steers: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Decorator: the function below, (`PairStep`, parameters) -> tensors, is a rule; it `steers` those of the loss."""

    def add(function: F) -> F:
        STEP_RULES.register(function.__name__)(StepRule(function, needs, steers))
        return function

    return add


@step_rule()
def softmin(step: PairStep, *, temperature: float) -> dict[str, Tensor]:
    """`-t log mean exp(-loss / t)`, t the temperature: pairs that look mislabelled count for less (Dr.DPO)."""
    value, weight = step_weights.softmin_weights(step.loss, step.weight, temperature=temperature)
    return {"weight": weight, "value": value}


@step_rule(needs=frozenset({Need.UNIFORM}), steers=("beta",))
def dynamic_beta(step: PairStep, *, beta: float, alpha: float, drop: float, decay: float) -> dict[str, Tensor]:
    """`beta_t = max(1e-3, beta (1 + alpha (mean of the kept margins - M)))` for all, after a share `drop` of outliers went."""
    name = CARRIED + "margin_{}"
    mean, deviation = step_weights.moments(step.margin, step.weight)
    centre = step_weights.moving(mean, step.carried.get(name.format("mean")), decay=decay)
    spread = step_weights.moving(deviation, step.carried.get(name.format("deviation")), decay=decay)
    kept = step_weights.kept_near_mean(step.margin, present(step.uniform), centre=centre, deviation=spread, drop=drop)
    weight = step.weight * kept
    found = (weight * step.margin).sum() / weight.sum().clamp(min=step_weights.LEAST)
    strength = (beta * (1 + alpha * (found - centre))).clamp(min=1e-3)
    return {
        "beta": strength.expand_as(step.margin), "weight": kept.to(step.margin.dtype),
        name.format("mean"): centre, name.format("deviation"): spread,
    }  # fmt: skip


@step_rule(steers=("margin",))
def margin_by_advance(step: PairStep, *, margin: float, alpha: float, decay: float) -> dict[str, Tensor]:
    """`margin + alpha z`, z the z-score of how much further than the reference a pair's length-mean margin is (alpha-DPO)."""
    name = CARRIED + "advance_{}"
    advance = step.mean_margin - step.ref_mean_margin
    mean, deviation = step_weights.moments(advance, step.weight)
    centre = step_weights.moving(mean, step.carried.get(name.format("mean")), decay=decay)
    spread = step_weights.moving(deviation, step.carried.get(name.format("deviation")), decay=decay)
    z = (advance - centre) / spread.clamp(min=step_weights.LEAST)
    return {"margin": margin + alpha * z, name.format("mean"): centre, name.format("deviation"): spread}


@objective("steered_pairs")
@dataclass(frozen=True, kw_only=True)
class SteeredPairs:
    """A named pair loss, its pairs weighed or its settings chosen by a rule over the whole optimizer step.

    `rule` is one of STEP_RULES with `rule_parameters`; what it steers takes the place of the loss's `parameters` of that name. It
    is applied in `prepare`, over every micro-batch, and no gradient flows through it. A rule needs a reference.
    """

    loss: str
    rule: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    rule_parameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def reads(self) -> frozenset[Head]:
        return PAIR_LOSSES[self.loss].reads

    @property
    def needs(self) -> frozenset[Need]:
        return PAIR_LOSSES[self.loss].needs | STEP_RULES[self.rule].needs | {Need.STATISTICS, Need.REF_LOGP}

    def _weight(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        weight = pair_weight(batch, dtype)
        return weight * batch.statistics["weight"].ne(0) if "weight" in batch.statistics else weight

    def denominators(self, batch: Batch) -> Tensor:
        return self._weight(batch, torch.float32).sum().reshape(1)

    def prepare(self, batches: Sequence[Batch], outs: Sequence[ModelOut]) -> list[Batch]:
        views = [self._view(out, batch) for out, batch in zip(outs, batches, strict=True)]
        columns = {name: torch.cat([v[name] for v in views]) for name in views[0]}
        carried = {k: t for k, t in batches[0].statistics.items() if k.startswith(CARRIED)}
        found = STEP_RULES[self.rule].function(PairStep(**columns, carried=carried), **self.rule_parameters)
        sizes = [len(present(b.pairs)) for b in batches]
        split = {k: t.split(sizes) if t.ndim else [t] * len(sizes) for k, t in found.items()}
        return [replace(b, statistics={**b.statistics, **{k: t[n] for k, t in split.items()}}) for n, b in enumerate(batches)]

    def _view(self, out: ModelOut, batch: Batch) -> dict[str, Tensor]:
        logp = present(out.logp)
        ratio, means, ref_means = (
            torch.sub(*sides(per_completion(values, batch, per), batch))
            for values, per in ((logp - present(batch.ref_logp), "sum"), (logp, "mean"), (present(batch.ref_logp), "mean"))
        )
        steers = STEP_RULES[self.rule].steers
        loss = torch.zeros_like(ratio) if steers else PAIR_LOSSES[self.loss](out, batch, self.parameters)
        view = {
            "loss": loss, "margin": ratio, "mean_margin": means, "ref_mean_margin": ref_means.to(ratio.dtype),
            "weight": pair_weight(batch, ratio.dtype),
        }  # fmt: skip
        if Need.UNIFORM in self.needs:
            chosen, rejected = sides(present(batch.uniform)[:, 0], batch)
            view["uniform"] = (chosen + rejected).remainder(1.0).to(ratio.dtype)  # one number per pair, of a ranking too
        return view

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        found = batch.statistics
        steered = {name: found[name] for name in STEP_RULES[self.rule].steers}
        value = PAIR_LOSSES[self.loss](out, batch, {**self.parameters, **steered})
        weight = self._weight(batch, value.dtype)
        if "weight" in found:
            value = found["weight"] * value
        if "value" in found:
            value = found["value"] + value - value.detach()  # the step's value, with the gradient of the weighted sum
        return Terms((Term(self.loss, value, weight),), pair_metrics(out, batch, weight, PAIR_LOSSES[self.loss]))
