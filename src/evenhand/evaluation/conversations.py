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
    """What a model says to every turn of every question, one group per question and turn as `mt_bench.read_answers` gives them.

    All first turns are asked together, then all second ones, behind the model's own first answers.
    """
    said: dict[str, list[str]] = {key: [] for key in questions}
    for turn in range(max(len(row["turns"]) for row in questions.values())):
        going = [key for key, row in questions.items() if len(row["turns"]) > turn]
        answers = ask([_prompt(key, questions[key]["turns"][: turn + 1], said[key]) for key in going])
        for key, group in zip(going, answers, strict=True):
            said[key].append(group.completions[0].text)
    return [
        mt_bench.turn_group(key, turn, said[key], row)
        for key, row in questions.items() for turn in range(1, len(row["turns"]) + 1)
    ]  # fmt: skip


def refuse_without_template(questions: Mapping[str, Row], model: str) -> None:
    """UserError where a second turn is asked of a model that knows no turns."""
    if any(len(row["turns"]) > 1 for row in questions.values()):
        raise UserError(
            "the questions have several turns, and the model has no chat template", where=model,
            fix="give a chat model, or questions of one turn",
        )  # fmt: skip


def _prompt(key: str, asked: Sequence[str], said: Sequence[str]) -> Prompt:
    turns = [Message("user", asked[0])]
    for answer, question in zip(said, asked[1:], strict=True):
        turns += [Message("assistant", answer), Message("user", question)]
    return Prompt(content=tuple(turns), id=f"{key}:{len(asked)}")
