"""From the bytes a server sent to a reply, or to the reason why they are none. Nothing that it sends may raise anything else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from evenhand.judges.chat import ChatReply, Usage

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPOKEN = ("text", "output_text")
_MOST = 10**9
"""Tokens in one answer that a server may claim."""


class Odd(Exception):
    """A reply that is no chat completion; the text says why."""


def parse(body: bytes) -> ChatReply:
    """The reply in a chat completion's body. Raises Odd for everything else.

    Content in parts is their text, thoughts left out; a usage that is no count of tokens is unknown; lone surrogates, which no
    file can hold, become replacement characters.

    >>> parse(b'{"choices": [{"message": {"content": [{"type": "text", "text": "Preferred: A"}]}}], "usage": "none"}').text
    'Preferred: A'
    >>> parse(b"<html>")
    Traceback (most recent call last):
        ...
    evenhand.judges.completion.Odd: not JSON: '<html>'
    """
    data = _json(body)
    if not isinstance(data, Mapping):
        raise Odd(f"not an object: {_beginning(body)}")
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        raise Odd(f"no message in it: {_beginning(body)}")
    finish = choice.get("finish_reason")
    if finish is not None and not isinstance(finish, str):
        raise Odd(f"finish_reason is no text: {finish!r:.60}")
    return ChatReply(
        text=_text(message.get("content")),
        finish="content_filter" if message.get("refusal") and not message.get("content") else clean(finish or "stop"),
        usage=usage_of(data.get("usage")),
        tokens=tokens_of(choice.get("logprobs")),
    )


def _json(body: bytes) -> Any:
    if not body.strip():
        raise Odd("an empty body")
    try:
        return json.loads(body)
    except RecursionError:
        raise Odd("its brackets are nested without end") from None
    except ValueError:
        raise Odd(f"not JSON: {_beginning(body)}") from None


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        spoken = [part.get("text") for part in content if part.get("type") in _SPOKEN]
        if spoken and all(isinstance(text, str) for text in spoken):
            return clean("".join(spoken))
    raise Odd(f"content is no text: {content!r:.60}")


def usage_of(raw: Any) -> Usage | None:
    """The counts of tokens, or None where they are not all counts."""
    if not isinstance(raw, Mapping):
        return None
    details = raw.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    prompt, completion, cached = raw.get("prompt_tokens"), raw.get("completion_tokens") or 0, cached or 0
    if not (_is_count(prompt) and _is_count(completion) and _is_count(cached)):
        return None
    return Usage(prompt=prompt, completion=completion, cached=cached)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def tokens_of(raw: Any) -> tuple[tuple[str, dict[str, float]], ...]:
    """Tokens with the log-probs of their alternatives; none where the server sent none."""
    content = raw.get("content") if isinstance(raw, Mapping) else raw
    if content is None:
        return ()
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise Odd(f"log-probs are no list: {content!r:.60}")
    return tuple(_token(entry) for entry in content)


def _token(entry: Any) -> tuple[str, dict[str, float]]:
    try:
        alternatives = {clean(o["token"]): log_prob(o["logprob"]) for o in entry.get("top_logprobs") or ()}
        return clean(entry["token"]), alternatives
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Odd(f"not a token with log-probs: {entry!r:.60}") from None


def log_prob(value: Any) -> float:
    """A log-prob in nats as a float: at most 0, up to rounding. Raises ValueError or TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value > 0.01:
        raise ValueError(f"{value!r:.60} is no log-prob")
    return float(max(value, -1e9))


def clean(text: Any) -> str:
    """The text with lone surrogates replaced. Raises TypeError for what is no text."""
    return _SURROGATE.sub("\ufffd", text)


def _beginning(body: bytes) -> str:
    return repr(body[:200].decode("utf-8", "replace"))
