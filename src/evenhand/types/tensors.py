"""The records of tokens and tensors: what a model is given, what it returns, and what an objective makes of it.

Legend for shapes: N = completions in a batch, C = longest completion (tokens), T = tokens in the flat sequence, B = pairs,
K = terms of a loss. All log-probs are in nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from evenhand.types.records import Group

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A tokenised completion. `mask` is True on tokens that count in a loss (the stop token does; a user's turn does not)."""

    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    behaviour_logp: tuple[float, ...] | None = None
    truncated: bool = False
    """True when the end was cut, so that the last token is not a stop token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGroup:
    """A group after rendering and tokenising: prompt ids (at least one) and the tokens of each completion (each at least one)."""

    prompt: tuple[int, ...]
    completions: tuple[Tokens, ...]
    group: Group

    @property
    def size(self) -> int:
        """Tokens this group occupies in a packed tree."""
        return len(self.prompt) + sum(len(c.ids) for c in self.completions)


@dataclass(frozen=True, slots=True)
class Span:
    """`length` consecutive tokens of the flat sequence from `start`."""

    start: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class Layout:
    """Where prompts and completions lie in the flat sequence [T]; completion i continues `prompts[owner[i]]`.

    A prompt token sees its prompt causally; a completion token sees its whole prompt and itself causally; nothing else.
    """

    prompts: tuple[Span, ...]
    completions: tuple[Span, ...]
    owner: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(s.length for s in self.prompts) + sum(s.length for s in self.completions)


class Head(StrEnum):
    """What an objective reads from the model."""

    LOGP = "logp"
    ENTROPY = "entropy"
    VALUE = "value"
    SCORE = "score"
    SCORES = "scores"
    KL = "kl"
    """Exact KL of every token's distribution to the frozen reference's, or a divergence to a teacher's; costs a pass of it."""
    REFERENCE_KL = "reference_kl"
    """The other direction: KL(reference, policy) at every token; costs a pass of the reference."""
    REFERENCE_ENTROPY = "reference_entropy"
    """The reference's entropy at every token, as a share of the largest possible; costs a pass of the reference."""
    COLLISION = "collision"
    """log sum_v p(v)^2 at every token, without gradient: the log-prob that a second draw would be the same token."""
    EXPERTS = "experts"
    """How often the routers of a mixture of experts chose each expert, and how likely they held it."""


class Need(StrEnum):
    """What an objective needs in its batches, beyond the tokens."""

    PAIRS = "pairs"
    SCORE = "score"
    RATINGS = "ratings"
    ADVANTAGE = "advantage"
    REF_LOGP = "ref_logp"
    OLD_LOGP = "old_logp"
    BEHAVIOUR_LOGP = "behaviour_logp"
    VALUE = "value"
    MISMATCHED = "mismatched"
    """Rows that pair a prompt with another prompt's completion (KTO's reference point), counted only."""
    OPTIMISM = "optimism"
    """Which answers are to become less likely, so that others are tried."""
    GIVEN = "given"
    """Which answers of a rollout the data wrote."""
    UNIFORM = "uniform"
    """A random number per token, anew in every step."""
    STATISTICS = "statistics"
    """A statistic of the whole optimizer step, computed by the objective's `prepare` in a no-grad pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One micro-batch: groups packed as prompt trees in one flat sequence, and the fields its objective needs.

    `ids`, `positions` [T]; `completion_mask` [N, C] True on tokens that count (right-padded per completion).
    Optional fields, all float unless said: `ref_logp`, `old_logp`, `behaviour_logp`, `value`, `returns`, `uniform` [N, C];
    `advantage` [N, C] or [N, 1]; `score`, `weight`, `optimism`, `given` [N]; `ratings` [N, K], NaN where missing;
    `pairs` [B, 2] int (chosen, rejected: places in N) with `margin`, `pair_weight` [B], and `pair_margin` [B] (the least gap of
    scores) where the data ask for it; `statistics` named tensors of the whole optimizer step (KTO's z0, AOT's weights).
    `shown` is the same completions under the prompts that a teacher reads in place of these.
    """

    ids: Tensor
    positions: Tensor
    layout: Layout
    completion_mask: Tensor
    ref_logp: Tensor | None = None
    old_logp: Tensor | None = None
    behaviour_logp: Tensor | None = None
    value: Tensor | None = None
    returns: Tensor | None = None
    uniform: Tensor | None = None
    advantage: Tensor | None = None
    score: Tensor | None = None
    weight: Tensor | None = None
    optimism: Tensor | None = None
    given: Tensor | None = None
    ratings: Tensor | None = None
    pairs: Tensor | None = None
    margin: Tensor | None = None
    pair_weight: Tensor | None = None
    pair_margin: Tensor | None = None
    shown: Batch | None = None
    statistics: Mapping[str, Tensor] = field(default_factory=dict)
    denominator_only: bool = False
    """True when every row has a zero gradient: it counts in denominators and step statistics, and is never run for a gradient."""

    @property
    def completions(self) -> int:
        return len(self.layout.completions)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on `device`."""
        import torch

        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), torch.Tensor)
        }
        shown = None if self.shown is None else self.shown.to(device)
        return replace(self, **moved, shown=shown, statistics={k: v.to(device) for k, v in self.statistics.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOut:
    """`logp[i, t] = log pi(completion_i[t] | prompt, completion_i[<t])` [N, C]; 0 at padding.

    `entropy`, `value`, `kl`, `reference_kl`, `reference_entropy`, `collision` [N, C] at the same positions (the state
    before token t); `score` [N], `scores` [N, K] at the last completion token; `experts` [2, E]: `models.routers.spread`.
    """

    logp: Tensor | None = None
    entropy: Tensor | None = None
    value: Tensor | None = None
    score: Tensor | None = None
    scores: Tensor | None = None
    kl: Tensor | None = None
    reference_kl: Tensor | None = None
    reference_entropy: Tensor | None = None
    collision: Tensor | None = None
    experts: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """One unreduced component of a loss: its share is `(value * weight).sum() / denominator`. Shapes broadcast."""

    name: str
    value: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class Weighted:
    """A metric as an additive pair: its value over a step is `sum(total) / sum(count)`. Detached; stays on the device."""

    total: Tensor
    count: Tensor


@dataclass(frozen=True, slots=True)
class Terms:
    """What an objective returns: K terms (denominators come separately, in the same order) and metrics."""

    terms: tuple[Term, ...]
    metrics: Mapping[str, Weighted] = field(default_factory=dict)
