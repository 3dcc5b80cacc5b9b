"""The records of text that everything begins and ends with: a prompt, its completions, their scores.

Legend: P prompts, G completions per prompt. All log-probs are in nats.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


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
