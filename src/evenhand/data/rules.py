"""What holds for the groups of every format: which prompts are continued, what may be learned, what is said about a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evenhand.types import Content


def opened(prompt: Content) -> Content:
    """A prompt of its own column that ends with the assistant: that turn is not finished, and the answer continues it.

    >>> from evenhand.types import Message
    >>> opened((Message("user", "2 + 2?"), Message("assistant", "It is")))[-1].prefill
    True
    """
    if isinstance(prompt, str) or not prompt or prompt[-1].role != "assistant" or prompt[-1].extra.get("tool_calls"):
        return prompt
    return (*prompt[:-1], replace(prompt[-1], prefill=True))


def broken(prompt: Content, answers: Mapping[str, Content]) -> tuple[str, str] | None:
    """(the answer's name or "", the finding) for a prompt and answers that no group may hold; None when all is well."""
    turns = () if isinstance(prompt, str) else prompt
    if any(m.prefill for m in turns[:-1]):
        return "", "a turn that is not the last one is marked as begun ('prefix')"
    if turns and turns[-1].role == "assistant" and turns[-1].extra.get("tool_calls") and not answers:
        return "", "ends with a tool call that no tool answers"
    for name, answer in answers.items():
        if isinstance(answer, str):
            continue
        if any(m.prefill for m in answer):
            return name, "a turn of the answer is marked as begun ('prefix')"
        if turns and turns[-1].prefill and "reasoning_content" in answer[0].extra:
            return name, "has thoughts inside of a turn that the prompt began"
        if not any(m.train for m in answer if m.role == "assistant"):
            return name, "has weight 0, so that nothing of it would be learned"
    return None
