"""Two answers and a label, in whatever columns: LLMBar, PandaLM, AlpacaFarm, Chatbot Arena, MT-Bench's people, any other.

A label is an outcome on the first answer: 1 better, 1/2 as good, 0 worse. Several people may have labelled one pair, in columns
or in rows of their own; their labels stay apart, by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evenhand.errors import UserError
from evenhand.evaluation.readers import Row
from evenhand.types import Completion, Group, Message, Prompt

Located = Sequence[tuple[str, Row]]
QUESTIONS = ("prompt", "instruction", "question", "input", "query")
SIDES = (
    ("response_a", "response_b"), ("response_A", "response_B"), ("answer_a", "answer_b"), ("output_a", "output_b"),
    ("completion_a", "completion_b"), ("response_1", "response_2"), ("response1", "response2"), ("answer_1", "answer_2"),
    ("answer1", "answer2"), ("output_1", "output_2"), ("output1", "output2"), ("text_a", "text_b"),
)  # fmt: skip
"""Columns of the first and of the second answer."""
LABELS = ("label", "winner", "preference", "preferred", "better", "choice")
RATERS = ("annotator", "annotator_index", "annotator_id", "rater", "rater_id", "judge", "worker")
FIRST = ("1", "a", "model_a", "response_a", "answer_a", "output_1", "response_1", "first", "left", "a>b", "model_1")
SECOND = ("2", "b", "model_b", "response_b", "answer_b", "output_2", "response_2", "second", "right", "b>a", "model_2")
TIE = ("tie", "tied", "same", "equal", "both", "neither", "tie (bothbad)", "both_bad", "bothbad", "c", "0.5", "1.5", "a=b")
_ONE_HOT = ("winner_model_a", "winner_model_b", "winner_tie")
SIZES = "the columns: a question, two answers such as `response_a` and `response_b`, and a `label` of 1 or 2, A or B, or tie"


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """One pair and its `labels` by rater: outcomes on the first completion of `group`, whose scores are the raters' shares."""

    group: Group
    labels: Mapping[str, float] = field(default_factory=dict)


def is_labelled(row: Mapping[str, Any]) -> bool:
    """Whether a row holds two answers and a label in one of these forms."""
    return _sides(row) is not None and _labels_of(row) is not None


def read_pairs(rows: Located) -> list[LabelledPair]:
    """The pairs in the order of the file; rows of one pair by several raters become one.

    Raises: UserError for a label that cannot be read, for labels 0 and 1, which could mean either side, and for a rater who
    labels a pair twice.
    """
    zero = _zero_is(rows)
    found: dict[tuple[str, str, str], tuple[Group, dict[str, float]]] = {}
    for where, row in rows:
        sides, named = _sides(row), _labels_of(row)
        if sides is None or named is None:
            raise UserError("holds no two answers with a label", where=where, fix=SIZES)
        prompt, a, b = sides(row, where)
        key = (prompt.text, a, b)
        answers = tuple(Completion(content=(Message("assistant", text),)) for text in (a, b))
        _, labels = found.setdefault(key, (Group(prompt=prompt, completions=answers), {}))
        for rater, value in named.items():
            if rater in labels:
                name = f"'{rater}' labels" if rater else "the file labels"
                raise UserError(f"{name} this pair twice", where=where, fix="name the raters in a column `annotator`")
            labels[rater] = outcome(value, zero, where)
    return [LabelledPair(_scored(group, labels), labels) for group, labels in found.values()]


def outcome(value: Any, zero: float | None, where: str) -> float:
    """A label as the outcome on the first answer; `zero` is what 0 means.

    >>> [outcome(v, 0.5, "") for v in (1, "2", "A", "model_b", "tie (bothbad)", 0, 1.25)]
    [1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.75]
    """
    said = str(value).strip().lower().removesuffix(".0")
    if said == "0" and zero is not None:
        return zero
    for words, found in ((FIRST, 1.0), (SECOND, 0.0), (TIE, 0.5)):
        if said in words:
            return found
    if isinstance(value, int | float) and 1 <= value <= 2:  # AlpacaEval's preference
        return 2.0 - value
    raise UserError(f"the label is {value!r:.40}", where=where, fix="1 or 2, A or B, model_a or model_b, or tie")


def _zero_is(rows: Located) -> float | None:
    """What 0 means: a tie beside 1 and 2; beside 1 alone nobody can know which side is meant."""
    said = {str(v).removesuffix(".0") for _, row in rows for v in (_labels_of(row) or {}).values()}
    if "0" not in said:
        return None
    if "2" in said or any(v.startswith("1.") for v in said):
        return 0.5
    raise UserError(
        "the labels are 0 and 1", where=rows[0][0], why="1 could name the first answer, or the second, or say that the first won",
        fix="use 1 and 2 for the first and the second answer (0 is a tie then), or A and B",
    )  # fmt: skip


def _scored(group: Group, labels: Mapping[str, float]) -> Group:
    mean = sum(labels.values()) / len(labels)
    return Group(prompt=group.prompt, completions=group.completions, scores=(mean, 1.0 - mean))


def _labels_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The labels of a row by rater, "" for a label without a name; None where there are none."""
    columns = {k: v for k, v in row.items() if k.startswith("annotator") and k[9:].strip("_").isdigit() and _is_label(v)}
    if columns and not any(name in row for name in LABELS):
        return columns
    value = winner(row)
    if value is None:
        return None
    rater = next((row[name] for name in RATERS if row.get(name) not in (None, "")), "")
    return {" ".join(map(str, rater)) if isinstance(rater, list) else str(rater): value}


def winner(row: Mapping[str, Any]) -> Any:
    """The label of a row, in one column or, as in Arena's tables, in three of which one is 1; None where it has none."""
    if all(name in row for name in _ONE_HOT):
        chosen = [w for w, name in zip(("model_a", "model_b", "tie"), _ONE_HOT, strict=True) if float(row[name] or 0) == 1]
        return chosen[0] if len(chosen) == 1 else None
    return next((row[name] for name in LABELS if _is_label(row.get(name))), None)


def _is_label(value: Any) -> bool:
    return isinstance(value, int | float | str) and value != ""


Reader = Callable[[Row, str], tuple[Prompt, str, str]]


def _sides(row: Mapping[str, Any]) -> Reader | None:
    """How question and answers of such a row are read; None where it has no two answers."""
    if isinstance(row.get("conversation_a"), list) and isinstance(row.get("conversation_b"), list):
        return _conversations
    columns = next((pair for pair in SIDES if all(isinstance(row.get(side), str) for side in pair)), None)
    question = next((name for name in QUESTIONS if isinstance(row.get(name), str)), None)
    if columns is None or question is None:
        return None
    more = "input" if question == "instruction" and row.get("input") else None  # Alpaca's own input below the instruction

    def read(given: Row, where: str) -> tuple[Prompt, str, str]:
        asked = _text(given[question]) + (f"\n\n{given[more]}" if more else "")
        meta = {k: given[k] for k in ("category", "subset", "source", "domain") if isinstance(given.get(k), str)}
        a, b = (_text(given[side]) for side in columns)
        return Prompt(content=(Message("user", asked),), meta=meta), a, b

    return read


def _conversations(row: Row, where: str) -> tuple[Prompt, str, str]:
    """Two conversations with the same questions: up to the judged turn where the row names one, else whole."""
    turn = row.get("turn")
    sides = [_turns(row[f"conversation_{side}"], where) for side in "ab"]
    last = min(len(sides[0][0]), len(sides[1][0]))
    if isinstance(turn, int) and not isinstance(turn, bool) and 1 <= turn <= last:
        last = turn
    asked, answers = sides[0][0][:last], [said[:last] for _, said in sides]
    if asked != sides[1][0][:last]:
        raise UserError("the two conversations ask different things", where=where)
    key = str(row.get("question_id", ""))
    cluster = {"cluster": key} if key else {}
    return Prompt(content=(Message("user", numbered(asked)),), meta=cluster), numbered(answers[0]), numbered(answers[1])


def _turns(messages: Sequence[Any], where: str) -> tuple[list[str], list[str]]:
    asked = [_said(m, where) for m in messages if isinstance(m, Mapping) and m.get("role") == "user"]
    said = [_said(m, where) for m in messages if isinstance(m, Mapping) and m.get("role") == "assistant"]
    if not asked or len(asked) != len(said):
        raise UserError("a conversation is no list of questions with their answers", where=where)
    return asked, said


def _said(message: Mapping[str, Any], where: str) -> str:
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        content = "".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    if not isinstance(content, str):
        raise UserError("the content of a message is no text", where=where)
    return content


def _text(value: str) -> str:
    """A text; Arena's tables write turns as a JSON list of texts."""
    if value[:2] == '["' and value[-1:] == "]":
        try:
            turns = json.loads(value)
        except ValueError:
            return value
        if isinstance(turns, list) and turns and all(isinstance(t, str) for t in turns):
            return numbered(turns)
    return value


def numbered(texts: Sequence[str]) -> str:
    """One turn as it is; several with their numbers."""
    return texts[0] if len(texts) == 1 else "\n\n".join(f"[turn {i}]\n{text}" for i, text in enumerate(texts, 1))
