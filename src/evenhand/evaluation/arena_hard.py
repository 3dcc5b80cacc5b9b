"""Arena-Hard's files: questions, answers and judgments, so that its own tools read what is written here.

Formats as in lmarena/arena-hard-auto (commit 196f6b8). A judgment holds two games: in the first the baseline is assistant A,
in the second the model is. The headline is the mean over both games, strong verdicts weighing three.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.evaluation.readers import Row, column, read_rows, write_jsonl
from evenhand.judges.verdict import Comparison, Order, Status, Verdict
from evenhand.stats.style import arena_hard_outcome, style_controlled
from evenhand.types import Completion, Group, Message, Prompt, content_id

MIRROR = {"A>>B": "B>>A", "A>B": "B>A", "A=B": "A=B", "B>A": "A>B", "B>>A": "A>>B"}
_SAME = {"A<<B": "B>>A", "A<B": "B>A", "B=A": "A=B", "B<A": "A>B", "B<<A": "A>>B"}
_CODE = re.compile(r"```[^`]*```")
_COUNTS = {f"h{i}": re.compile(rf"^#{{{i}}}\s", re.MULTILINE) for i in range(1, 7)}


def read_questions(path: str | Path) -> list[Prompt]:
    """Prompts with their uid as id; category and subcategory stay in `meta`."""
    rows = read_rows(path)
    texts = zip(column(rows, "uid", path), column(rows, "prompt", path), rows, strict=True)
    return [
        Prompt(content=(Message("user", text),), id=uid, meta={k: v for k, v in row.items() if k not in ("uid", "prompt")})
        for uid, text, row in texts
    ]


def write_answers(
    path: str | Path, groups: Sequence[Group], model: str, *, count_tokens: Callable[[str], int] | None = None
) -> None:
    """The first answer of each group. Their `token_len` is tiktoken's for gpt-4o: give `count_tokens` for style control.

    Without it, words are counted, and `token_len_of` says so.
    """
    write_jsonl(path, [_answer(g, model, count_tokens) for g in groups])


def _answer(group: Group, model: str, count_tokens: Callable[[str], int] | None) -> Row:
    text = group.completions[0].text
    prose = _CODE.sub("", text)
    metadata = {
        "token_len": (count_tokens or (lambda t: len(t.split())))(text),
        "token_len_of": "tokens" if count_tokens else "words",
        "header_count": {name: len(pattern.findall(prose)) for name, pattern in _COUNTS.items()},
        "list_count": {
            "ordered": len(re.findall(r"^\s*\d+\.\s", prose, re.MULTILINE)),
            "unordered": len(re.findall(r"^\s*[-*+]\s", prose, re.MULTILINE)),
        },
        "bold_count": {"**": len(re.findall(r"\*\*[^*\n]+\*\*", prose)), "__": len(re.findall(r"__[^_\n]+__", prose))},
    }
    messages = [{"role": "user", "content": group.prompt.text}, {"role": "assistant", "content": {"answer": text}}]
    ans_id = content_id(f"{model}\n{group.prompt.id}\n{text}")
    return {"uid": group.prompt.id, "ans_id": ans_id, "model": model, "messages": messages, "tstamp": 0.0, "metadata": metadata}


def uid(row: Mapping[str, Any]) -> str:
    """The question of a row: `uid`, or `question_id` in files of v0.1."""
    return str(row["uid"] if "uid" in row else row["question_id"])


def is_old_answer(row: Mapping[str, Any]) -> bool:
    """Whether an answer has v0.1's form: turns that are objects with their `content`."""
    choices = row.get("choices")
    turns = choices[0].get("turns") if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else None
    return bool(isinstance(turns, list) and turns and isinstance(turns[0], Mapping) and "content" in turns[0])


def read_old_answers(path: str | Path, questions: str | Path | None = None) -> tuple[str, list[Group]]:
    """The same of v0.1's files, which do not repeat the questions: without `questions` the prompts are empty."""
    rows = read_rows(path)
    models = set(column(rows, "model_id", path))
    if len(models) != 1:
        raise UserError(f"{len(models)} models in one file", where=str(path), fix="one file per model")
    asked = {uid(q): q for q in read_rows(questions)} if questions is not None else {}
    groups = []
    for i, row in enumerate(rows):
        key, where = uid(row), f"{Path(path).name}[{i}]"
        if asked and key not in asked:
            raise UserError(f"no question '{key}'", where=where, fix="give the questions these answers belong to")
        question = asked.get(key, {})
        text = str(question["turns"][0]["content"]) if "turns" in question else str(question.get("prompt", ""))
        answer = str(row["choices"][0]["turns"][0]["content"])
        meta: dict[str, Any] = {k: question[k] for k in ("category", "cluster_name") if k in question}
        prompt = Prompt(content=(Message("user", text),) if text else "", id=key, meta=meta)
        groups.append(Group(prompt=prompt, completions=(Completion(content=answer),)))
    return str(models.pop()), groups


def read_answers(path: str | Path) -> tuple[str, list[Group]]:
    """(model, groups) of a file of answers."""
    rows = read_rows(path)
    models = set(column(rows, "model", path))
    if len(models) != 1:
        raise UserError(f"{len(models)} models in one file", where=str(path), fix="one file per model")
    return str(models.pop()), [_group(row) for row in rows]


def _group(row: Row) -> Group:
    *asked, last = row["messages"]
    content = last["content"]
    answer = content["answer"] if isinstance(content, Mapping) else content
    turns = tuple(Message(m["role"], m["content"]) for m in asked)
    return Group(prompt=Prompt(content=turns, id=row["uid"]), completions=(Completion(content=answer),))


def judgments(
    comparisons: Sequence[Comparison], verdicts: Sequence[Verdict], *, model: str, baseline: str, judge: str
) -> list[Row]:
    """Verdicts of the template `arena_hard` as judgments; `a` is the model. A game without a verdict is null."""
    rows = []
    for c, v in zip(comparisons, verdicts, strict=True):
        games = [_game(v.shown(False)), _game(v.shown(True))]
        rows.append(
            {"uid": c.prompt.id, "category": str(c.prompt.meta.get("category", "")), "judge": judge, "model": model,
             "baseline": baseline, "games": games}
        )  # fmt: skip
    return rows


def _game(order: Order | None) -> Row | None:
    if order is None or order.status is Status.INVALID:
        return None
    said = order.label.strip("[]").upper()
    label = _SAME.get(said, said) if said else "A=B"
    if not said and order.outcome != 0.5:  # an empty answer loses clearly; a higher score says nothing of how clearly
        won = "A>>B" if order.status is Status.EMPTY else "A>B"
        label = won if (order.outcome > 0.5) == order.a_first else MIRROR[won]
    return {"score": label, "judgment": {"answer": order.raw}, "prompt": ""}


def battles(rows: Sequence[Row]) -> list[tuple[str, float, float]]:
    """(uid, score of the model, weight) of every game; a row with a game that has no verdict is left out, as theirs is."""
    found = []
    for row in rows:
        games = row["games"]
        if len(games) != 2 or any(g is None or g.get("score") is None for g in games):
            continue
        first, weight = arena_hard_outcome(games[0]["score"])
        found.append((uid(row), 1.0 - first, weight))
        found.append((uid(row), *arena_hard_outcome(games[1]["score"])))
    return found


def first_preferred(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """How far the answer shown first was preferred in either game, for every row with two verdicts."""
    labels = [[g.get("score") if g else None for g in row["games"]] for row in rows if len(row["games"]) == 2]
    return [(arena_hard_outcome(a)[0], arena_hard_outcome(b)[0]) for a, b in labels if a is not None and b is not None]


def score(rows: Sequence[Row]) -> dict[str, Any]:
    """The headline without style control: the weighted mean over games, its interval over resampled *prompts*.

    `evaluation.style` has it at equal style.
    """
    games = battles(rows)
    if not games:
        raise UserError("no row has two verdicts", where="arena-hard judgments")
    uids, outcome, weight = (list(c) for c in zip(*games, strict=True))
    found = style_controlled(outcome, np.zeros((len(games), 4)), prompt=uids, weight=weight, features=())
    return {
        "score": 100 * found.win_rate, "ci95": [100 * v for v in found.ci95], "n": found.n, "dropped": len(rows) - len(set(uids)),
    }  # fmt: skip
