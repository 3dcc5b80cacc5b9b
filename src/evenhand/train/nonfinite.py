"""A loss or a gradient that is not finite ends a run before the weights move; here is found where it came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from evenhand.protocols import Objective
from evenhand.types import Batch, ModelOut

INPUTS = (
    "score", "advantage", "ref_logp", "old_logp", "behaviour_logp", "value", "returns", "margin", "pair_margin", "pair_weight",
    "weight",
)  # fmt: skip
"""Fields of a batch that an objective may read, in the order in which they arise."""
OUTPUTS = ("logp", "score", "scores", "value", "entropy", "kl", "reference_kl", "reference_entropy", "collision")
"""What a model answers."""
WEIGHTS, LOSS, GRADIENT = "the weights", "the loss of a row", "the gradient"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectRow:
    """A completion of the step, by its micro-batch (from 0), its row there, and its prompt's token ids."""

    microbatch: int
    row: int
    prompt: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NonfiniteDiagnosis:
    """The first thing that is not finite on the way from weights and data to the gradient, and the sizes met on that way.

    `first` is WEIGHTS, "batch FIELD", "model FIELD", LOSS or GRADIENT; `rows` those in which it was seen (none for weights and
    gradient). `largest` are finite absolute values: of a weight, an advantage, a token's log-prob (nats); `reward` is the range.
    """

    first: str
    rows: tuple[SuspectRow, ...] = ()
    microbatches: int = 0
    largest: Mapping[str, float] = field(default_factory=dict)
    reward: tuple[float, float] | None = None


class NotFinite(Exception):
    """Raised by the loop; whoever knows the method, the seed and the texts makes it a message for a person."""

    def __init__(self, quantity: str, value: float, step: int, diagnosis: NonfiniteDiagnosis) -> None:
        super().__init__(f"the {quantity} of step {step} is {value}: first in {diagnosis.first}")
        self.quantity, self.value, self.step, self.diagnosis = quantity, value, step, diagnosis


def first_not_finite(metrics: Mapping[str, float]) -> tuple[str, float] | None:
    """(quantity, value) of a loss or gradient norm that cannot be used; every other metric may be NaN (nothing was counted).

    `to_floats` leaves NaN out, so an absent one is NaN.

    >>> first_not_finite({"loss": 0.5, "grad_norm": 2.0}), first_not_finite({"loss": 0.5, "grad_norm": math.inf})
    (None, ('gradient norm', inf))
    """
    for name, quantity in (("loss", "loss"), ("grad_norm", "gradient norm")):
        value = metrics.get(name, math.nan)
        if not math.isfinite(value):
            return quantity, value
    return None


@torch.no_grad()
def diagnose(model: nn.Module, objective: Objective, batches: Sequence[Batch], temperature: float) -> NonfiniteDiagnosis:
    """Looks again at a step that failed, from its beginning. `batches` hold their whole-step statistics, if there are any."""
    run = [(n, b) for n, b in enumerate(batches) if not b.denominator_only]
    largest = _largest("weight", list(model.parameters())) | _largest("advantage", [b.advantage for _, b in run])
    diagnosis = partial(NonfiniteDiagnosis, microbatches=len(batches), reward=_range([b.score for _, b in run]))
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        return diagnosis(first=WEIGHTS, largest=largest)
    for name in INPUTS:
        if rows := [row for n, b in run for row in _rows(n, b, name, getattr(b, name))]:
            return diagnosis(first=f"batch {name}", rows=tuple(rows), largest=largest)
    outs = [(n, b, model(b, objective.reads, temperature=temperature)) for n, b in run]
    largest |= _largest("log-prob of a token", [o.logp for _, _, o in outs])
    for name in OUTPUTS:
        if rows := [row for n, b, o in outs for row in _rows(n, b, name, getattr(o, name))]:
            return diagnosis(first=f"model {name}", rows=tuple(rows), largest=largest)
    if rows := [row for n, b, o in outs for row in _loss_rows(n, b, o, objective)]:
        return diagnosis(first=LOSS, rows=tuple(rows), largest=largest)
    return diagnosis(first=GRADIENT, largest=largest)


def _rows(microbatch: int, batch: Batch, name: str, values: Tensor | None) -> list[SuspectRow]:
    """Completions at which `values` are not finite; padding does not count, nor does the NaN of an answer without a score."""
    if values is None:
        return []
    bad = values.isinf() if name == "score" and values is batch.score else ~values.isfinite()
    if values.shape == batch.completion_mask.shape:
        bad = bad & batch.completion_mask
    return [_row(microbatch, batch, n, len(values)) for n in _marked(bad)]


def _loss_rows(microbatch: int, batch: Batch, out: ModelOut, objective: Objective) -> list[SuspectRow]:
    terms = objective(out, batch).terms
    bad = [(n, len(share)) for t in terms for share in [t.value * t.weight] if share.ndim for n in _marked(~share.isfinite())]
    return [_row(microbatch, batch, n, size) for n, size in dict.fromkeys(bad)]


def _marked(bad: Tensor) -> list[int]:
    return bad.reshape(len(bad), -1).any(-1).nonzero().flatten().tolist()


def _row(microbatch: int, batch: Batch, n: int, size: int) -> SuspectRow:
    """Row `n` of `size`: of the pairs where there is one row per pair, shown by its chosen side, else of the completions."""
    if batch.pairs is not None and size == len(batch.pairs):
        n = int(batch.pairs[n, 0])
    span = batch.layout.prompts[batch.layout.owner[n]]
    return SuspectRow(microbatch=microbatch, row=n, prompt=tuple(batch.ids[span.start : span.stop].tolist()))


def _largest(name: str, values: Sequence[Tensor | None]) -> dict[str, float]:
    ends = _range(values)
    return {name: max(abs(end) for end in ends)} if ends is not None else {}


def _range(values: Sequence[Tensor | None]) -> tuple[float, float] | None:
    """Smallest and largest of the finite values; one tensor at a time, since weights may be large."""
    finite = [v[v.isfinite()] for v in values if v is not None]
    known = [v for v in finite if v.numel()]
    return (min(float(v.min()) for v in known), max(float(v.max()) for v in known)) if known else None
