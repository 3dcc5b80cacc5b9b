"""Questions to a model as plain texts: any engine, one answer each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from evenhand.protocols import Engine
from evenhand.seeding import keyed
from evenhand.types import Message, Prompt, Sampling

Ask = Callable[[Sequence[str]], list[str]]
"""Questions in, one answer each, in order."""


def asker(engine: Engine, sampling: Sampling, *, chat: bool = True) -> Ask:
    """Asks `engine`, as a user's turn or (with `chat=False`) as text to be continued. Every call draws anew.

    >>> from evenhand.engines.scripted import ScriptedEngine
    >>> asker(ScriptedEngine(lambda prompt, i: prompt.text.upper()), Sampling())(["hi"])
    ['HI']
    """
    calls = 0

    def ask(questions: Sequence[str]) -> list[str]:
        nonlocal calls
        prompts = [Prompt(content=(Message("user", q),) if chat else q) for q in questions]
        groups = engine.generate(prompts, 1, replace(sampling, seed=keyed(sampling.seed, "ask", calls)))
        calls += 1
        return [g.completions[0].text.strip() for g in groups]

    return ask
