"""Long work that goes on where it was stopped: scores and sampled answers, kept piece by piece in a file as they are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.data.jsonl import group_from_json, group_to_json
from evenhand.judges.cache import Cache
from evenhand.judges.chat import ChatReply
from evenhand.protocols import Reward
from evenhand.types import Group, Prompt, Sampling, Scores

AT_ONCE = 32
"""Groups per piece: at most so much is done twice after a stop."""
ROWS = 256
"""Answers per piece; a sampler wants many rows at once."""
Progress = Callable[[int, int], None]
Generate = Callable[[Sequence[Prompt], int, Sampling], list[Group]]
"""An engine's `generate`."""


@dataclass(frozen=True, slots=True)
class KeptReward:
    """`reward` with every group's scores kept in `cache`; `identity` is JSON that tells the reward from every other."""

    reward: Reward
    cache: Cache
    identity: Any
    progress: Progress | None = None

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        keys = [_key("scores", self.identity, group_to_json(g)) for g in groups]
        first = {k: n for n, k in reversed(list(enumerate(keys)))}  # equal groups are scored once
        found = {k: _known(self.cache, k) for k in first}
        unknown = sorted(n for k, n in first.items() if found[k] is None)
        done = len(groups) - len(unknown)
        for start in range(0, len(unknown), AT_ONCE):
            piece = unknown[start : start + AT_ONCE]
            for n, scores in zip(piece, self.reward([groups[n] for n in piece]), strict=True):
                found[keys[n]] = _keep(self.cache, keys[n], [list(scores.values), {k: list(v) for k, v in scores.parts.items()}])
            if self.progress is not None:
                self.progress(done + start + len(piece), len(groups))
        return [Scores(tuple(values), {k: tuple(v) for k, v in parts.items()}) for values, parts in (found[k] for k in keys)]


def kept_answers(
    generate: Generate, prompts: Sequence[Prompt], n: int, sampling: Sampling, *, cache: Cache, identity: Any,
    progress: Progress | None = None,
) -> list[Group]:  # fmt: skip
    """`n` answers to each of some different prompts, sampled piece by piece; what `cache` knows is not sampled again.

    An engine keys each answer by its prompt and number, so that pieces change nothing.
    """
    out: list[Group] = []
    size = max(1, ROWS // n)
    for start in range(0, len(prompts), size):
        piece = prompts[start : start + size]
        key = _key("answers", identity, [group_to_json(Group(prompt=p, completions=())) for p in piece], n, repr(sampling))
        rows = _known(cache, key)
        if rows is None:
            rows = _keep(cache, key, [group_to_json(g) for g in generate(piece, n, sampling)])
        out += [group_from_json(row) for row in rows]
        if progress is not None:
            progress(len(out), len(prompts))
    return out


def _key(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _known(cache: Cache, key: str) -> Any:
    reply = cache.get(key)
    return None if reply is None else json.loads(reply.text)


def _keep(cache: Cache, key: str, value: Any) -> Any:
    """The value as the file gives it back, so that a resumed run sees what an unbroken one saw."""
    text = json.dumps(value)
    cache.put(key, ChatReply(text=text), {"model": "kept"})
    return json.loads(text)
