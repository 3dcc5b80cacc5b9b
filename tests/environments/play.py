"""Small environments and an engine that plays given turns, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from evenhand.engines.decode_batch import DecodeRow, Sampled
from evenhand.environments.registry import ENVIRONMENTS
from evenhand.protocols import Action, Reply
from evenhand.types import Finish, Message, Prompt


@dataclass
class Played:
    """An environment that answers turn k of the model with `replies[k]`: a reply, or what it raises."""

    replies: Sequence[Reply | Exception | Callable[[], Reply]]
    begins: Callable[[Prompt], Prompt] = lambda prompt: prompt
    seen: list[Action] = field(default_factory=list)

    def reset(self, prompt: Prompt) -> Prompt:
        return self.begins(prompt)

    def step(self, action: Action) -> Reply:
        self.seen.append(action)
        reply = self.replies[len(self.seen) - 1]
        if isinstance(reply, Exception):
            raise reply
        return reply() if callable(reply) else reply


class registered:
    """Within it, `kind` is an environment made by `make(context)`."""

    def __init__(self, make, kind: str = "played") -> None:
        self.make, self.kind = make, kind

    def __enter__(self) -> dict:
        ENVIRONMENTS.register(self.kind)(self.make)
        return {"kind": self.kind}

    def __exit__(self, *_) -> None:
        del ENVIRONMENTS.entries[self.kind]


@dataclass
class ScriptedTokens:
    """An engine at the level of tokens: row r's k-th turn is `turns[prompt's last id stays out][k]`, cut at its limit."""

    turns: Sequence[Sequence[int]]
    stop: int
    asked: list[tuple[list[list[int]], list[DecodeRow]]] = field(default_factory=list)

    def generate(self, *_, **__):
        raise AssertionError("answers of several turns are sampled by tokens")

    def sample(self, prompts, rows, *, progress=None) -> list[Sampled]:
        self.asked.append(([list(p) for p in prompts], list(rows)))
        ids = list(self.turns[len(self.asked) - 1])
        found = []
        for row in rows:
            cut = ids[: row.sampling.max_tokens]
            finish = Finish.STOP if cut[-1] == self.stop else Finish.LENGTH
            found.append(Sampled(tuple(cut), tuple(-0.5 - i for i in range(len(cut))), finish))
        return found


def tool(text: str, reward: float = 0.0, *, done: bool = False) -> Reply:
    return Reply((Message("tool", text),), reward, done)
