"""Prompt and answers of a row brought into one form: all text, or all turns, with nothing of the prompt left in the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.data import chat_cleaning, rules
from evenhand.data.rows import Row
from evenhand.types import Completion, Content, Group, Message, Prompt


def answered(
    row: Row,
    prompt: Content,
    answers: Mapping[str, Content],
    scores: Sequence[float],
    meta: Mapping[str, Any],
    *,
    prompt_name: str = "prompt",
    parts: Mapping[str, tuple[float, ...]] | None = None,
) -> Group:
    """A group from contents, each answer under the name of its field; raises BadRow for what no group may hold."""
    if found := rules.broken(prompt, answers):
        raise row.bad(found[0] or prompt_name, found[1])
    completions = tuple(Completion(content=a) for a in answers.values())
    return Group(prompt=Prompt(content=prompt, meta=dict(meta)), completions=completions, scores=tuple(scores), parts=parts or {})


def prompt_content(row: Row, name: str, *, chat: bool) -> Content:
    """The prompt as the reading asks for it: verbatim (wrapped), as a user's turn, as a transcript's turns, or messages."""
    content = row.content(name)
    if not isinstance(content, str):
        return content
    if row.reading.transcripts == "turns" and chat_cleaning.is_transcript(content):
        return _without_open_turn(row, name, chat_cleaning.turns(content))
    if row.reading.style == "chat" or (chat and row.reading.style != "verbatim"):
        return (*system_turn(row), Message("user", content))
    return row.reading.wrap.replace("{prompt}", content) if row.reading.wrap else content


def _without_open_turn(row: Row, name: str, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """A prompt's transcript ends with an open "Assistant:", which the answer is to fill, or to continue where words follow."""
    if turns[-1].role != "assistant":
        raise row.bad(name, "the transcript does not end with an open 'Assistant:'", fix="set transcripts: verbatim")
    turns = turns if turns[-1].content else turns[:-1]
    refuse_empty(row, name, turns)
    return turns


def refuse_empty(row: Row, name: str, turns: Sequence[Message]) -> None:
    empty = next((i for i, m in enumerate(turns, 1) if not (m.content.strip() or m.extra)), None)
    if empty:
        raise row.bad(name, f"turn {empty} of {len(turns)} ({turns[empty - 1].role}) is empty")


def continued(row: Row, prompt: Content, answers: Mapping[str, Content]) -> tuple[Content, Mapping[str, Content]]:
    """Prompt and answers in one form: all text, or all turns with the prompt's own turns taken off the answers."""
    if isinstance(prompt, str) and all(isinstance(a, str) for a in answers.values()):
        return prompt, answers
    turns = {n: (Message("assistant", a),) if isinstance(a, str) else a for n, a in answers.items()}
    if isinstance(prompt, str):
        return _continued_text(row, prompt, turns)
    rest = {n: t[len(prompt) :] if t[: len(prompt)] == prompt else t for n, t in turns.items()}
    refuse_strange(row, rest)
    return rules.opened(prompt), rest


def _continued_text(row: Row, prompt: str, turns: Mapping[str, tuple[Message, ...]]) -> tuple[Content, Mapping[str, Content]]:
    """A prompt given as text beside conversations: it is the user's turn, or it repeats one of their shared turns."""
    if all(t[0].role == "assistant" for t in turns.values()):
        return (Message("user", prompt),), turns
    shared = chat_cleaning.shared_turns(list(turns.values()))
    start = next(iter(turns.values()))[:shared]
    if not any(m.role == "user" and m.content.strip() == prompt.strip() for m in start):
        raise row.bad(
            "prompt", f"is no turn that {' and '.join(turns)} share", fix="remove the column, or make it the user's turn"
        )
    rest = {n: t[shared:] for n, t in turns.items()}
    refuse_strange(row, rest)
    return start, rest


def refuse_strange(row: Row, answers: Mapping[str, tuple[Message, ...]]) -> None:
    for name, turns in answers.items():
        if not turns or turns[0].role != "assistant" or turns[-1].role != "assistant":
            roles = ", ".join(m.role for m in turns) or "nothing"
            raise row.bad(name, f"expected the assistant's answer after the prompt, found the turns: {roles}")
        refuse_empty(row, name, turns)


def optional_text(row: Row, name: str) -> str:
    return row.text(name, empty=True) if row.has(name) else ""


def system_turn(row: Row) -> tuple[Message, ...]:
    """The system prompt that stands in a column of its own, if there is one."""
    text = optional_text(row, "system")
    return (Message("system", text),) if text.strip() else ()
