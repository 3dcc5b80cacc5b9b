"""Questions to a model: any engine or chat model, one answer each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from evenhand.errors import UserError
from evenhand.judges.chat import Chat, Request
from evenhand.protocols import Engine
from evenhand.seeding import keyed
from evenhand.types import Message, Prompt, Sampling

Question = str | tuple[Message, ...]
"""A user's turn, or a conversation that waits for its answer."""
Ask = Callable[[Sequence[Question]], list[str]]
"""Questions in, one answer each, in order."""
_SMALL = 2**31


def asker(engine: Engine, sampling: Sampling, *, chat: bool = True) -> Ask:
    """Asks `engine`, as a user's turn or (with `chat=False`) as text to be continued. Every call draws anew.

    >>> from evenhand.engines.scripted import ScriptedEngine
    >>> asker(ScriptedEngine(lambda prompt, i: prompt.text.upper()), Sampling())(["hi"])
    ['HI']
    """
    calls = 0

    def ask(questions: Sequence[Question]) -> list[str]:
        nonlocal calls
        prompts = [Prompt(content=_turns(q) if chat else _text(q)) for q in questions]
        groups = engine.generate(prompts, 1, replace(sampling, seed=keyed(sampling.seed, "ask", calls)))
        calls += 1
        return [g.completions[0].text.strip() for g in groups]

    return ask


def chat_asker(
    chat: Chat, *, max_tokens: int, temperature: float = 1.0, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> Ask:
    """Asks a chat model: an endpoint, or a model on this machine. Every call draws anew.

    With a `judges.cache.CachedChat` whose cache is a file, every answer is kept as it arrives: the same calls in the same order
    after an interruption ask only what is not known yet. Equal questions of one call get one answer.
    """
    calls = 0

    def ask(questions: Sequence[Question]) -> list[str]:
        nonlocal calls
        attempt = keyed(seed, "ask", calls) % _SMALL
        calls += 1
        asked = [Request(messages=_turns(q), max_tokens=max_tokens, temperature=temperature, attempt=attempt) for q in questions]
        answers = [""] * len(asked)
        for done, (place, reply) in enumerate(chat.complete(asked), start=1):
            if not reply.usable:
                where = str(chat.identity.get("model", ""))
                raise UserError(f"no answer: {reply.note}", where=where, fix="check the server, then give the same command again")
            answers[place] = reply.text.strip()
            if progress is not None:
                progress(done, len(asked))
        return answers

    return ask


def _turns(question: Question) -> tuple[Message, ...]:
    return (Message("user", question),) if isinstance(question, str) else question


def _text(question: Question) -> str:
    return question if isinstance(question, str) else "\n\n".join(m.content for m in question)
