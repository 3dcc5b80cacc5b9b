"""The records everything is made of. See docs/design.md: one record (the group), one batch (the packed prompt tree).

Legend for shapes: P prompts, G completions per prompt, N = completions in a batch, C = longest completion (tokens),
T = tokens in the flat sequence, B = pairs, K = terms of a loss. All log-probs are in nats.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `role` is system, user, assistant or tool.

    `extra`: what the turn says beside its text, as JSON under the names that chat templates read: `reasoning_content` (thoughts),
    `tool_calls`, `tool_call_id`, `name`. `train`: False takes a turn of the assistant out of what is learned. `prefill`: True on
    the last turn of a prompt that the answer continues, inside the same turn.
    """

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    train: bool = True
    prefill: bool = False

    @property
    def text(self) -> str:
        """Thoughts, text and tool calls, for people and for text metrics.

        >>> Message("assistant", "Noon.", {"reasoning_content": "I look at the clock."}).text
        'I look at the clock.\\nNoon.'
        """
        if not self.extra:
            return self.content
        calls = [json.dumps(call, ensure_ascii=False, sort_keys=True) for call in self.extra.get("tool_calls", ())]
        return "\n".join(filter(None, (self.extra.get("reasoning_content"), self.content, *calls)))

    def as_dict(self) -> dict[str, Any]:
        """The turn as a chat template takes it."""
        return {"role": self.role, "content": self.content, **self.extra}


Content = str | tuple[Message, ...]
"""Verbatim text (used as it is, no template), or turns of a conversation (rendered by the chat template)."""


def content_text(content: Content) -> str:
    """Readable text of either form; for showing and for text metrics, never for tokenising."""
    return content if isinstance(content, str) else "\n".join(m.text for m in content)


def content_id(content: Content, options: Mapping[str, Any] | None = None) -> str:
    """A stable 16-hex-digit name of a prompt's content, and of the template's arguments that go with it."""
    plain: Any = content if isinstance(content, str) else [_named(m) for m in content]
    plain = [plain, options] if options else plain
    return hashlib.blake2b(json.dumps(plain, ensure_ascii=False, sort_keys=True).encode(), digest_size=8).hexdigest()


def _named(message: Message) -> list[Any]:
    """What tells a turn from others."""
    more = [*([message.extra] if message.extra else []), *(["prefill"] if message.prefill else [])]
    return [message.role, message.content, *more]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model is asked. `meta` carries JSON values a reward may need (an answer, a topic, a source).

    `options`: arguments of the chat template that belong to this prompt: `tools` (schemas), `enable_thinking` and the like.
    """

    content: Content
    id: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", content_id(self.content, self.options))

    @property
    def text(self) -> str:
        return content_text(self.content)


class Finish(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """A stop token was produced; it is the last of `tokens`."""
    LENGTH = "length"
    """The token limit, or that of turns, was reached first."""
    GIVEN = "given"
    """The text came from data, not from a sampler; a stop token is added when it is tokenised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A part of an answer over several turns: what the model wrote in one of them, or what its environment said back.

    `tokens` is how many of the answer's tokens it has: as sampled with the stop token, or with all that the chat template writes
    up to the model's next word. `reward` is what the environment gave for a turn that the model wrote.
    """

    messages: tuple[Message, ...]
    tokens: int
    written: bool
    """Whether the model wrote it; what it did not write counts in no loss."""
    reward: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer. `tokens` are exactly what was sampled (stop token included); None for text from a file.

    `behaviour_logp` [len(tokens)]: log-prob of each token as the engine sampled it, at its temperature. `earned` [len(tokens)]:
    see `Scores`; it lives until the answer is credited. An answer over several `turns` has the tokens of all of them, those not
    the model's with a `behaviour_logp` of 0; its `content` is the last turn. `failed` says why it has no score.
    """

    content: Content
    tokens: tuple[int, ...] | None = None
    behaviour_logp: tuple[float, ...] | None = None
    finish: Finish = Finish.GIVEN
    earned: tuple[float, ...] | None = None
    turns: tuple[Turn, ...] = ()
    failed: str = ""

    @property
    def text(self) -> str:
        return content_text(self.content)

    @property
    def mask(self) -> tuple[bool, ...]:
        """True on the sampled tokens that the model wrote [len(tokens)]."""
        if not self.turns:
            return (True,) * len(self.tokens or ())
        return tuple(turn.written for turn in self.turns for _ in range(turn.tokens))

    @property
    def written(self) -> int:
        """How many tokens the model wrote."""
        return sum(self.mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One prompt, its k completions, and a score per completion (higher is better, NaN = unscored).

    A bare prompt has k = 0; a demonstration k = 1, binary feedback too (score 1 or 0); a pair k = 2 and scores (1, 0) or graded;
    a ranking rank-derived scores; rollouts rewards, with unweighted `parts`, and the steps of the weights (`policy_version`).

    >>> Group(prompt=Prompt(content="Hi"), completions=(Completion(content="Hello"),)).scores
    (nan,)
    """

    prompt: Prompt
    completions: tuple[Completion, ...]
    scores: tuple[float, ...] = ()
    parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    policy_version: int | None = None

    def __post_init__(self) -> None:
        if not self.scores:
            object.__setattr__(self, "scores", (math.nan,) * len(self.completions))
        if len(lengths := {len(self.completions), len(self.scores), *(len(p) for p in self.parts.values())}) != 1:
            raise ValueError(f"completions, scores and parts differ in length (prompt {self.prompt.id}): {sorted(lengths)}")


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
        return replace(self, **moved, statistics={k: v.to(device) for k, v in self.statistics.items()})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample one row. `temperature` 0 is greedy. `top_p` 1, `top_k` 0 and `min_p` 0 mean off. Lengths in tokens."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 128
    seed: int = 0
    min_p: float = 0.0

    @property
    def truncates(self) -> bool:
        """Whether unlikely tokens are cut off, so that tokens are not drawn from the model's own distribution."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


@dataclass(frozen=True, slots=True)
class Scores:
    """A reward's answer for one group: a value per completion (NaN = could not be scored) and its unweighted parts.

    `earned`, where a reward knows it, holds for every completion how much of its value was earned at each of its tokens; the rest
    is earned at the last one. Credits per token read it (GAE); to others only the value counts.
    """

    values: tuple[float, ...]
    parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    earned: tuple[tuple[float, ...], ...] = ()
