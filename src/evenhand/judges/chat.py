"""What is sent to a judging model and what comes back, whatever runs it: an endpoint, or a model on this machine."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from evenhand.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to a model. `attempt` counts samples of the same question; `logprobs` asks for the tokens' alternatives.

    `labels` are the token texts whose probability matters; a model on this machine scores exactly these.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    attempt: int = 0
    logprobs: bool = False
    labels: tuple[str, ...] = ()

    def key(self, identity: Mapping[str, Any]) -> str:
        """64 hex digits of the model's identity and everything asked: the same key is the same question."""
        text = json.dumps([dict(identity), asdict(self)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one answer as the server counted them; `cached` are those of `prompt` that it had seen before."""

    prompt: int
    completion: int
    cached: int = 0


UNUSABLE = "unusable"
"""The server sent something that is no answer, every time it was asked."""
TOO_LONG = "too_long"
"""The question does not fit into the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """A model's answer. `finish` is the server's word ("stop", "length", "content_filter"), or `UNUSABLE` or `TOO_LONG`: then
    there is no answer, and `note` says why.

    `seconds` is what a model on this machine took for it, its share of a batch; None from a server.
    `tokens` (only with log-probs) pairs each token's text with the log-probs, in nats, of the likeliest texts at its place.
    """

    text: str
    finish: str = "stop"
    usage: Usage | None = None
    tokens: tuple[tuple[str, Mapping[str, float]], ...] = field(default=())
    seconds: float | None = None
    note: str = ""

    @property
    def usable(self) -> bool:
        """Whether a model answered at all."""
        return self.finish not in (UNUSABLE, TOO_LONG)

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k != "note"}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ChatReply:
        """The inverse of `to_json`. Raises ValueError, TypeError or KeyError for anything else."""
        text, finish, usage, seconds = row["text"], row["finish"], row.get("usage"), row.get("seconds")
        if not (isinstance(text, str) and isinstance(finish, str)):
            raise TypeError("text and finish are texts")
        if seconds is not None and not (type(seconds) in (int, float) and math.isfinite(seconds)):
            raise TypeError("seconds are a number")
        counted = Usage(**usage) if usage is not None else None
        if counted is not None and any(type(n) is not int or not 0 <= n < 2**53 for n in asdict(counted).values()):
            raise TypeError("tokens are counts")
        return cls(text=text, finish=finish, usage=counted, tokens=_tokens(row.get("tokens") or ()), seconds=seconds)


def _tokens(raw: Any) -> tuple[tuple[str, Mapping[str, float]], ...]:
    found = tuple((text, dict(alternatives)) for text, alternatives in raw)
    for text, alternatives in found:
        numbers = all(isinstance(k, str) and type(v) in (int, float) and v <= 1 for k, v in alternatives.items())
        if not (isinstance(text, str) and numbers):
            raise TypeError("tokens are texts with log-probs")
    return found


class Chat(Protocol):
    """A model that answers messages. `identity` is JSON that tells it from every other (no secrets in it)."""

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def cost(self, reply: ChatReply) -> float | None:
        """Dollars, or None when the price is unknown."""
        ...

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, ChatReply]]:
        """(index, reply) in the order of arrival, every request once."""
        ...
