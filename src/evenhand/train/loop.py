"""The one training loop. It knows protocols, never a method's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from evenhand.protocols import Objective, Source, StepObjective
from evenhand.train.nonfinite import Diagnosis, NotFinite, diagnose, first_not_finite
from evenhand.train.optim import AdamW, clip_gradients
from evenhand.types import Batch, Need, Terms, Weighted


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What is held fixed over a run: the network, what it minimises, where batches come from, how it moves."""

    model: nn.Module
    objective: Objective
    source: Source
    optimizer: AdamW
    factor: Callable[[int], float]
    clip: float = 1.0
    temperature: float = 1.0
    device: torch.device | str = "cpu"

    def run(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Optimizer steps `start` to `stop - 1`; yields (steps done, metrics) after each."""
        for index in range(start, stop):
            yield index + 1, self.one_step(index)

    def one_step(self, index: int) -> dict[str, float]:
        """One optimizer step: count, then accumulate gradients over the micro-batches, then move.

        Raises NotFinite, with the weights where they were, when the loss or the gradient's norm is not finite.
        """
        step = self.source.step(index)
        batches = [b.to(self.device) for b in step.batches]
        loss, metrics = accumulate(self.model, self.objective, batches, self.temperature)
        norm = clip_gradients(self.model.parameters(), self.clip)
        shown = to_floats({"loss": loss, "grad_norm": norm} | means(metrics))  # the step's one transfer, before the move
        if (found := first_not_finite(shown)) is not None:
            raise NotFinite(*found, index + 1, self._diagnosis(batches))
        factor = self.factor(index)
        self.optimizer.step(factor)
        return {"step": index + 1, **shown, "lr": self.optimizer.learning_rate * factor, **step.metrics}

    def _diagnosis(self, batches: Sequence[Batch]) -> Diagnosis:
        if Need.STATISTICS in self.objective.needs:
            batches = with_statistics(self.model, cast(StepObjective, self.objective), batches, self.temperature)
        return diagnose(self.model, self.objective, batches, self.temperature)


def accumulate(
    model: nn.Module, objective: Objective, batches: Sequence[Batch], temperature: float = 1.0
) -> tuple[Tensor, dict[str, Weighted]]:
    """Backward over all micro-batches; the gradient is that of sum_k sum(value_k * weight_k) / D_k.

    D is counted over the whole step before the first forward pass, so that neither loss nor gradient depends on how the step
    was cut. Returns the loss (detached) and the additive metrics. A step without rows (every pair tied) has no gradient.
    """
    if not batches:
        return torch.zeros(()), {}
    if Need.STATISTICS in objective.needs:
        batches = with_statistics(model, cast(StepObjective, objective), batches, temperature)
    totals = denominators(objective, batches)
    loss = torch.zeros((), device=totals.device)
    metrics: dict[str, Weighted] = {}
    for batch in batches:
        if batch.denominator_only:
            continue
        terms = objective(model(batch, objective.reads, temperature=temperature), batch)
        share = weighted_loss(terms, totals)
        share.backward()
        loss = loss + share.detach()
        metrics = merged(metrics, terms.metrics)
    return loss, metrics


def denominators(objective: Objective, batches: Sequence[Batch]) -> Tensor:
    """D [K] over the whole step; a term nobody counts in gets 1, since its numerator is zero."""
    totals = torch.stack([objective.denominators(b).float() for b in batches]).sum(0)
    return torch.where(totals == 0, torch.ones_like(totals), totals)


def weighted_loss(terms: Terms, totals: Tensor) -> Tensor:
    """sum_k sum(value_k * weight_k) / D_k of one micro-batch."""
    shares = [(t.value * t.weight).sum() / d for t, d in zip(terms.terms, totals, strict=True)]
    return torch.stack(shares).sum()


@torch.no_grad()
def with_statistics(model: nn.Module, objective: StepObjective, batches: Sequence[Batch], temperature: float) -> list[Batch]:
    """The batches with the objective's whole-step statistic, from a pass without gradients."""
    outs = [model(b, objective.reads, temperature=temperature) for b in batches]
    return objective.prepare(batches, outs)


@torch.no_grad()
def evaluate(model: nn.Module, objective: Objective, batches: Sequence[Batch], temperature: float = 1.0) -> dict[str, float]:
    """Loss and metrics over held-out batches, counted as one step."""
    if Need.STATISTICS in objective.needs:
        batches = with_statistics(model, cast(StepObjective, objective), batches, temperature)
    totals = denominators(objective, batches)
    loss = torch.zeros((), device=totals.device)
    metrics: dict[str, Weighted] = {}
    for batch in batches:
        terms = objective(model(batch, objective.reads, temperature=temperature), batch)
        loss = loss + weighted_loss(terms, totals)
        metrics = merged(metrics, terms.metrics)
    return to_floats({"loss": loss} | means(metrics))


def merged(a: Mapping[str, Weighted], b: Mapping[str, Weighted]) -> dict[str, Weighted]:
    """Additive metrics of two micro-batches."""
    out = dict(a)
    for name, w in b.items():
        out[name] = Weighted(out[name].total + w.total, out[name].count + w.count) if name in out else w
    return out


def means(metrics: Mapping[str, Weighted]) -> dict[str, Tensor]:
    """sum(total) / sum(count); metrics nobody counted in are left out by their NaN."""
    return {name: w.total / w.count for name, w in metrics.items()}


def to_floats(values: Mapping[str, Tensor]) -> dict[str, float]:
    """All values in one transfer from the device; NaN (nothing counted) is dropped."""
    if not values:
        return {}
    stacked = torch.stack([v.detach().float().reshape(()) for v in values.values()]).tolist()
    return {k: v for k, v in zip(values, stacked, strict=True) if v == v}
