"""The one training loop. It knows protocols, never a method's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn

from evenhand.protocols import CARRIED, Objective, Source, StepObjective
from evenhand.train.nonfinite import NonfiniteDiagnosis, NotFinite, diagnose, first_not_finite
from evenhand.train.optim import clip_gradients
from evenhand.train.optimizers import Optimizer
from evenhand.train.ranks import ONE, Ranks, in_order
from evenhand.types import Batch, ModelOut, Need, Terms, Weighted


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What is held fixed over a run: the network, what it minimises, where batches come from, how it moves.

    `memory` is what the objective's statistics carry from step to step (a running mean, say): part of every checkpoint.
    `ranks` are the processes that share the work of a step.
    """

    model: nn.Module
    objective: Objective
    source: Source
    optimizer: Optimizer
    factor: Callable[[int], float]
    clip: float = 1.0
    temperature: float = 1.0
    device: torch.device | str = "cpu"
    memory: dict[str, Tensor] = field(default_factory=dict)
    ranks: Ranks = ONE

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
        loss, metrics = accumulate(self.model, self.objective, batches, self.temperature, self.memory, self.ranks)
        norm = clip_gradients(self.model.parameters(), self.clip)
        shown = to_floats({"loss": loss, "grad_norm": norm} | means(metrics))  # the step's one transfer, before the move
        if (found := first_not_finite(shown)) is not None:
            with self.ranks.whole(self.model):
                raise NotFinite(*found, index + 1, self._diagnosis(batches))
        factor = self.factor(index)
        self.optimizer.step(factor)
        return {"step": index + 1, **shown, "lr": self.optimizer.learning_rate * factor, **step.metrics}

    def _diagnosis(self, batches: Sequence[Batch]) -> NonfiniteDiagnosis:
        if Need.STATISTICS in self.objective.needs:
            batches = with_statistics(self.model, cast(StepObjective, self.objective), batches, self.temperature, self.memory)
        return diagnose(self.model, self.objective, batches, self.temperature)


def accumulate(
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Batch],
    temperature: float = 1.0,
    memory: dict[str, Tensor] | None = None,
    ranks: Ranks = ONE,
) -> tuple[Tensor, dict[str, Weighted]]:
    """Backward over all micro-batches; the gradient is that of sum_k sum(value_k * weight_k) / D_k.

    D is counted over the whole step before the first forward pass, so that neither loss nor gradient depends on how the step
    was cut, or spread over `ranks`. Returns the loss (detached) and the additive metrics. A step without rows (every pair tied)
    has no gradient. `memory` is what the objective's statistics carried here from the last step, and is left as they carry it on.
    """
    if not batches:
        return torch.zeros(()), {}
    if Need.STATISTICS in objective.needs:
        memory = {} if memory is None else memory
        batches = with_statistics(model, cast(StepObjective, objective), batches, temperature, memory, ranks)
        memory |= {name: value for name, value in batches[0].statistics.items() if name.startswith(CARRIED)}
    totals = denominators(objective, batches)
    loss = torch.zeros((), device=totals.device)
    metrics: dict[str, Weighted] = {}
    live = [b for b in batches if not b.denominator_only]
    turns = ranks.turns([len(b.ids) for b in live])
    for number, turn in enumerate(turns, 1):
        ranks.before_backward(model, last=number == len(turns))
        with turn.running():
            terms = objective(model(live[turn.index], objective.reads, temperature=temperature), live[turn.index])
            share = weighted_loss(terms, totals) * turn.share
            share.backward()
        loss = loss + share.detach()
        metrics = merged(metrics, terms.metrics) if turn.share else metrics
    ranks.sum_gradients(model)
    return together(ranks, loss, metrics)


def denominators(objective: Objective, batches: Sequence[Batch]) -> Tensor:
    """D [K] over the whole step; a term nobody counts in gets 1, since its numerator is zero."""
    totals = torch.stack([objective.denominators(b).float() for b in batches]).sum(0)
    return torch.where(totals == 0, torch.ones_like(totals), totals)


def weighted_loss(terms: Terms, totals: Tensor) -> Tensor:
    """sum_k sum(value_k * weight_k) / D_k of one micro-batch."""
    shares = [(t.value * t.weight).sum() / d for t, d in zip(terms.terms, totals, strict=True)]
    return torch.stack(shares).sum()


@torch.no_grad()
def with_statistics(
    model: nn.Module,
    objective: StepObjective,
    batches: Sequence[Batch],
    temperature: float,
    memory: Mapping[str, Tensor] | None = None,
    ranks: Ranks = ONE,
) -> list[Batch]:
    """The batches with the objective's whole-step statistic, from a pass without gradients.

    It finds what it remembers among their statistics, and leaves there what it carries on: see `protocols.CARRIED`.
    """
    outs: dict[int, ModelOut] = {}
    for turn in ranks.turns([len(b.ids) for b in batches]):
        with turn.running():
            out = model(batches[turn.index], objective.reads, temperature=temperature)
        outs |= {turn.index: out} if turn.share else {}
    if memory:
        batches = [replace(b, statistics={**b.statistics, **memory}) for b in batches]
    return objective.prepare(batches, in_order(ranks, outs))


@torch.no_grad()
def evaluate(
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Batch],
    temperature: float = 1.0,
    memory: Mapping[str, Tensor] | None = None,
    ranks: Ranks = ONE,
) -> dict[str, float]:
    """Loss and metrics over held-out batches, counted as one step that leaves nothing in `memory`."""
    if Need.STATISTICS in objective.needs:
        batches = with_statistics(model, cast(StepObjective, objective), batches, temperature, memory, ranks)
    totals = denominators(objective, batches)
    loss = torch.zeros((), device=totals.device)
    metrics: dict[str, Weighted] = {}
    for turn in ranks.turns([len(b.ids) for b in batches]):
        with turn.running():
            terms = objective(model(batches[turn.index], objective.reads, temperature=temperature), batches[turn.index])
        loss = loss + weighted_loss(terms, totals) * turn.share
        metrics = merged(metrics, terms.metrics) if turn.share else metrics
    loss, metrics = together(ranks, loss, metrics)
    return to_floats({"loss": loss} | means(metrics))


def together(ranks: Ranks, loss: Tensor, metrics: Mapping[str, Weighted]) -> tuple[Tensor, dict[str, Weighted]]:
    """Loss and metrics of a step from every rank's share of them; a metric may be missing on some."""
    (whole, known), *others = ranks.everyone((loss, dict(metrics)))
    for share, more in others:
        whole, known = whole + share, merged(known, more)
    return whole, known


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
