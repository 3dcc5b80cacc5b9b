"""What judging models answered, in an append-only JSONL file: a finished run is scored again without one call.

Processes may share a file, and a kill can spoil at most the last line, whose question is asked again. What is stored is what the
model said, never how it was read: a better reading of old answers costs nothing. What is no answer (a server's error page, a
question that was too long) is not stored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.judges.append import append
from evenhand.judges.chat import Chat, ChatReply, Request

DIGEST = "digest"
"""Of all else in a line; lines of older files have none."""
_log = logging.getLogger(__name__)


class Cache:
    """Replies by key. `path` None keeps them in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._replies: dict[str, ChatReply] = {}
        if path is not None and path.exists():
            if not path.is_file():
                raise UserError("is not a file", where=str(path), fix="name another file for the judge's answers")
            self._replies = dict(_read(path))

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> ChatReply | None:
        return self._replies.get(key)

    def put(self, key: str, reply: ChatReply, about: Mapping[str, Any]) -> None:
        """Keeps a reply; `about` says for people what it was a reply to."""
        self._replies[key] = reply
        if self.path is None:
            return
        row = {"key": key, **about, **reply.to_json(), "time": round(time.time(), 3)}
        append(self.path, json.dumps({**row, DIGEST: _digest(row)}, ensure_ascii=True).encode())


def _digest(row: Mapping[str, Any]) -> str:
    """A name of a line's content; in ASCII, since what servers send may hold halves of characters."""
    return hashlib.blake2b(json.dumps(row, sort_keys=True, ensure_ascii=True).encode(), digest_size=8).hexdigest()


def _read(path: Path) -> Iterator[tuple[str, ChatReply]]:
    """The replies of a file. Lines that are none (the torn line of a killed process), or not what was written, are counted: their
    questions are asked again."""
    spoilt = 0
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if row.pop(DIGEST, None) not in (None, _digest(row)):
                    raise ValueError("a bit of the line has changed")
                key = row["key"]
                reply = ChatReply.from_json(row)
                if not isinstance(key, str):
                    raise TypeError("a key is a text")
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                spoilt += 1
                continue
            yield key, reply
    if spoilt:
        _log.warning("%s: %d lines cannot be read; what they answered is asked again", path, spoilt)


class CachedChat:
    """A chat model that never asks the same question twice. `calls` counts what really was asked, `hits` what was not."""

    def __init__(self, chat: Chat, cache: Cache) -> None:
        self.chat, self.cache = chat, cache
        self.calls = self.hits = 0
        self._used: dict[str, ChatReply] = {}

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.chat.identity

    def cost(self, reply: ChatReply) -> float | None:
        return self.chat.cost(reply)

    def spent(self) -> dict[str, Any]:
        """What the answers used so far took, those that were known already included: tokens, and for a model on this machine
        its seconds and `device`; dollars where the price is known. Every answer counts once; None is not known, never zero."""
        replies = list(self._used.values())
        usages = [r.usage for r in replies]
        known = [u for u in usages if u is not None]
        counted = len(known) == len(usages)
        costs, seconds = [self.cost(r) for r in replies], [r.seconds for r in replies]
        found: dict[str, Any] = {"asked": self.calls, "known": self.hits, "answers": len(replies)}
        found["prompt_tokens"] = sum(u.prompt for u in known) if counted else None
        found["completion_tokens"] = sum(u.completion for u in known) if counted else None
        device = getattr(self.chat, "device", None)
        if device is None:
            found["cost_usd"] = None if None in costs else math.fsum(c for c in costs if c is not None)
        else:
            found |= {"seconds": None if None in seconds else math.fsum(s for s in seconds if s is not None), "device": device}
        return found

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, ChatReply]]:
        """Known replies first; the others as they arrive, each kept once the caller has read it and asks for the next: a reply
        that could not be understood is not kept. Equal requests are asked once."""
        keys = [r.key(self.identity) for r in requests]
        fresh: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            known = self.cache.get(key)
            if known is None:
                fresh.setdefault(key, []).append(index)
            else:
                self.hits += 1
                self._used[key] = known
                yield index, known
        order = [indices[0] for indices in fresh.values()]
        for place, reply in self.chat.complete([requests[i] for i in order]):
            key = keys[order[place]]
            self.calls += 1
            self._used[key] = reply
            for index in fresh[key]:
                yield index, reply
            if reply.usable:
                self.cache.put(key, reply, {"model": self.identity, "attempt": requests[order[place]].attempt})
