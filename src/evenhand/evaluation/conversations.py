"""Questions of several turns (MT-Bench's, Arena-Hard v0.1's) put to a model: each turn with its own answers before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evenhand.errors import UserError
from evenhand.evaluation import mt_bench
from evenhand.evaluation.readers import Row, read_located
from evenhand.types import Group, Message, Prompt

Ask = Callable[[Sequence[Prompt]], Sequence[Group]]
"""Prompts to groups of one answer each."""


def holds_questions(path: Path) -> bool:
    """Whether a file's rows have a `question_id` and `turns`, and no answers."""
    if path.suffix not in (".json", ".jsonl", ".gz") or not path.is_file():
        return False
    row = read_located(path)[0][1]
    return {"question_id", "turns"} <= row.keys() and "choices" not in row


def converse(questions: Mapping[str, Row], ask: Ask) -> list[Group]:
    """What a model says to every turn of every question, a group per question and turn as `mt_bench.read_answers` gives them."""
    return as_judged(turn_by_turn(first_turns(questions), ask))


def first_turns(questions: Mapping[str, Row]) -> list[Prompt]:
    """The first turn of every question, which has all of them in its `meta`; the turns of a question are one cluster."""
    found = []
    for key, row in questions.items():
        turns = [str(turn) for turn in row["turns"]]
        meta = {"turn": 1, "turns": turns, "category": str(row.get("category", "")), "cluster": key}
        references = {"references": [str(text) for text in row["reference"]]} if row.get("reference") else {}
        found.append(Prompt(content=(Message("user", turns[0]),), id=f"{key}:1", meta={**meta, **references}))
    return found


def turn_by_turn(prompts: Sequence[Prompt], ask: Ask) -> list[Group]:
    """The answers to all turns of `prompts` as the model gave them, the turns of a question in a row.

    All first turns are asked together, then all second ones, behind the model's own first answers. A prompt without further turns
    in its `meta` has one.
    """
    said: dict[str, list[Group]] = {prompt.id: [] for prompt in prompts}
    going = {prompt.id: prompt for prompt in prompts}
    while going:
        for key, group in zip(going, ask(list(going.values())), strict=True):
            said[key].append(group)
        going = {key: then for key in going if (then := _next(said[key][-1])) is not None}
    return [group for groups in said.values() for group in groups]


def _next(group: Group) -> Prompt | None:
    """The next turn of the conversation that a group's answer ends; None after the last."""
    meta, content = group.prompt.meta, group.prompt.content
    if not in_conversation(group.prompt) or isinstance(content, str) or meta["turn"] >= len(meta["turns"]):
        return None
    more = (Message("assistant", group.completions[0].text), Message("user", meta["turns"][meta["turn"]]))
    number = meta["turn"] + 1
    return Prompt(content=(*content, *more), id=f"{meta['cluster']}:{number}", meta={**meta, "turn": number})


def in_conversation(prompt: Prompt) -> bool:
    """Whether a prompt is a turn of a question that may have several; see `first_turns`."""
    return {"turn", "turns", "cluster"} <= prompt.meta.keys() and not isinstance(prompt.content, str)


def as_judged(groups: Sequence[Group]) -> list[Group]:
    """The groups as a judge reads them: a turn of a conversation with the turns of both sides before it, others as they are."""
    return [_turn(group) if in_conversation(group.prompt) else group for group in groups]


def _turn(group: Group) -> Group:
    meta, content = group.prompt.meta, group.prompt.content
    assert not isinstance(content, str)
    said = [m.text for m in content if m.role == "assistant"] + [group.completions[0].text]
    row = {"turns": meta["turns"], "category": meta["category"], "reference": meta.get("references", [])}
    return mt_bench.turn_group(meta["cluster"], meta["turn"], said, row)


def refuse_without_template(questions: Mapping[str, Row], model: str) -> None:
    """UserError where a second turn is asked of a model that knows no turns."""
    if any(len(row["turns"]) > 1 for row in questions.values()):
        raise UserError(
            "the questions have several turns, and the model has no chat template", where=model,
            fix="give a chat model, or questions of one turn",
        )  # fmt: skip
