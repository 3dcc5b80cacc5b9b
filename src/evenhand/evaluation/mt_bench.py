"""MT-Bench's files: questions, answers of two turns, and judgments of single answers and of pairs.

Formats as in FastChat's `llm_judge` (commit 0e6d3e4). Single: a grade from 1 to 10 per question and turn, -1 where none could
be read. Pair: two games per question and turn, the answers swapped in the second; a win needs both, else it is a tie; a row
with an "error" is dropped, as theirs are, and counted here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.evaluation.labelled_pairs import numbered
from evenhand.evaluation.pairwise_files import ratings
from evenhand.evaluation.place_bound import refuse_place_bound
from evenhand.evaluation.readers import Row, field, read_located, write_jsonl
from evenhand.judges.verdict import Comparison, Order, Status, Verdict
from evenhand.stats import clustered_se, percentile_interval
from evenhand.types import Completion, Group, Message, Prompt, content_id

SINGLE = frozenset({"question_id", "model", "score", "turn"})
PAIR = frozenset({"question_id", "model_1", "model_2", "g1_winner", "g2_winner"})
ANSWERS = frozenset({"question_id", "model_id", "choices"})
UNREAD = -1
_WINNERS = {"model_1": 1.0, "tie": 0.5, "model_2": 0.0}


def read_questions(path: str | Path) -> dict[str, Row]:
    """Questions by id: `turns` (one or two user messages), `category`, and `reference` where the benchmark has one."""
    return questions(read_located(path))


def questions(rows: Sequence[tuple[str, Row]]) -> dict[str, Row]:
    """The same of rows with their places."""
    found = {}
    for where, row in rows:
        turns = field(row, "turns", where)
        if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
            raise UserError("'turns' is not a list of texts", where=where)
        key = str(field(row, "question_id", where))
        if key in found:
            raise UserError(f"the question '{key}' is there twice", where=where, fix="leave one of them")
        found[key] = {**row, "reference": _references(row, where)}
    return found


def _references(row: Row, where: str) -> list[str]:
    """The right answer of each turn; none where the benchmark has none. A single one is that of the first turn.

    >>> _references({"reference": "four"}, ""), _references({"reference": [4, "5"]}, ""), _references({}, "")
    (['four'], ['4', '5'], [])
    """
    given = row.get("reference")
    found = given if isinstance(given, list) else [] if given is None else [given]
    if not all(type(answer) in (str, int, float) for answer in found):
        fix = "give the right answer of each turn, or leave it out"
        raise UserError("'reference' is not a list of texts", where=where, fix=fix)
    return [str(answer) for answer in found]


def read_answers(path: str | Path, questions: str | Path | None = None) -> tuple[str, list[Group]]:
    """(model, groups): one group per question and turn, ids "81:1" and "81:2".

    The second turn's prompt is what the user said in both turns; its answer is what the model said in both, so that a judge
    reads the whole conversation of each side. Without `questions` the prompts are empty: lengths and styles can be told.
    """
    asked = read_questions(questions) if questions is not None else {}
    groups, models = [], set()
    for where, row in read_located(path):
        key = str(field(row, "question_id", where))
        models.add(str(field(row, "model_id", where)))
        said = _turns(row, where)
        question = asked.get(key, {})
        if asked and not question:
            raise UserError(f"no question '{key}'", where=where, fix="give the questions these answers belong to")
        groups += [turn_group(key, turn, said, question) for turn in range(1, len(said) + 1)]
    if len(models) != 1:
        raise UserError(f"{len(models)} models in one file", where=str(path), fix="one file per model")
    return models.pop(), groups


def _turns(row: Row, where: str) -> list[str]:
    choices = field(row, "choices", where)
    if not choices or not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise UserError("'choices' holds no choice", where=where)
    turns = field(choices[0], "turns", f"{where}, field choices[0]")
    if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
        raise UserError("'turns' is not a list of texts", where=f"{where}, field choices[0]")
    return turns


def turn_group(key: str, turn: int, said: Sequence[str], question: Row) -> Group:
    """One turn of a question for a judge: with the turns before it in view. The turns of a question are one cluster."""
    asked = [str(t) for t in question.get("turns", [""] * len(said))][:turn]
    references = question.get("reference", [])[:turn]
    meta: dict[str, Any] = {"turn": turn, "category": str(question.get("category", "")), "cluster": key}
    meta |= {"reference": numbered(references)} if references else {}
    prompt = Prompt(content=(Message("user", numbered(asked)),), id=f"{key}:{turn}", meta=meta)
    return Group(prompt=prompt, completions=(Completion(content=numbered(said[:turn])),))


def write_answers(path: str | Path, answers: Mapping[str, Sequence[str]], model: str) -> None:
    """`answers`: what the model said in each turn of each question, by question id."""
    write_jsonl(path, [_answer(key, list(turns), model) for key, turns in answers.items()])


def _answer(key: str, turns: list[str], model: str) -> Row:
    answer_id = content_id("\n".join([model, key, *turns]))
    return {
        "question_id": _as_number(key), "answer_id": answer_id, "model_id": model, "choices": [{"index": 0, "turns": turns}],
        "tstamp": 0.0,
    }  # fmt: skip


def _as_number(key: str) -> int | str:
    return int(key) if key.isdecimal() else key


def pair_judgments(
    comparisons: Sequence[Comparison], verdicts: Sequence[Verdict], *, model: str, baseline: str, judge: str, template: str
) -> list[Row]:
    """Verdicts on answers read by `read_answers` as pair judgments; model_1 is the model, shown first in game 1."""
    rows = []
    for c, v in zip(comparisons, verdicts, strict=True):
        key, _, turn = c.prompt.id.partition(":")
        one, two = v.shown(True), v.shown(False)
        rows.append(
            {"question_id": _as_number(key), "model_1": model, "model_2": baseline, "g1_winner": _winner(one),
             "g2_winner": _winner(two), "judge": [judge, template], "g1_user_prompt": "", "g1_judgment": one.raw if one else "",
             "g2_user_prompt": "", "g2_judgment": two.raw if two else "", "turn": int(turn or 1), "tstamp": 0.0}
        )  # fmt: skip
    return rows


def single_judgments(
    comparisons: Sequence[Comparison], verdicts: Sequence[Verdict], *, model: str, baseline: str, judge: str, template: str
) -> list[Row]:
    """The grades that a single-answer template gave to both sides; -1 where none could be read."""
    rows = []
    for name, score in ((model, "score_a"), (baseline, "score_b")):
        for c, v in zip(comparisons, verdicts, strict=True):
            key, _, turn = c.prompt.id.partition(":")
            grade = getattr(v, score)
            rows.append(
                {"question_id": _as_number(key), "model": name, "judge": [judge, template], "user_prompt": "", "judgment": "",
                 "score": UNREAD if grade != grade else grade, "turn": int(turn or 1), "tstamp": 0.0}
            )  # fmt: skip
    return rows


def _winner(order: Order | None) -> str:
    if order is None or order.status is Status.INVALID:
        return "error"
    return "tie" if order.outcome == 0.5 else "model_1" if order.outcome > 0.5 else "model_2"


def grades(rows: Sequence[tuple[str, Row]]) -> dict[str, Any]:
    """Single judgments, by model: mean grade by turn and over both, with an interval that keeps a question's turns together."""
    by_model: dict[str, list[tuple[str, float, int]]] = {}
    unread: dict[str, int] = {}
    for where, row in rows:
        model, score = str(field(row, "model", where)), _grade(row, where)
        by_model.setdefault(model, [])
        unread[model] = unread.get(model, 0) + (score == UNREAD)
        if score != UNREAD:
            by_model[model].append((str(field(row, "question_id", where)), score, int(row.get("turn", 1))))
    found = {m: {**_of_grades(m, graded), "unread": unread[m]} for m, graded in by_model.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]["score"]))


def _grade(row: Row, where: str) -> float:
    score = field(row, "score", where)
    if not isinstance(score, int | float) or not (score == UNREAD or 0 <= score <= 10):
        raise UserError(f"'score' is {score!r}, not a grade of at most 10", where=where, fix="-1 where the judge gave none")
    return float(score)


def _of_grades(model: str, graded: Sequence[tuple[str, float, int]]) -> dict[str, Any]:
    if not graded:
        raise UserError(f"no judgment of '{model}' could be read", where="MT-Bench judgments")
    by_question: dict[str, list[float]] = {}
    for key, score, _ in graded:
        by_question.setdefault(key, []).append(score)
    scores = np.array([s for _, s, _ in graded])
    row: dict[str, Any] = {"score": float(scores.mean()), "n": len(graded), "questions": len(by_question)}
    row |= {f"turn_{t}": float(np.mean(own)) for t in (1, 2) if (own := [s for _, s, turn in graded if turn == t])}
    if len(by_question) > 1:
        row["standard_error"] = clustered_se(scores, [key for key, _, _ in graded])
        row["ci95"] = percentile_interval([float(np.mean(v)) for v in by_question.values()])
    return row


def pair_results(rows: Sequence[tuple[str, Row]]) -> dict[str, Any]:
    """Pair judgments: wins, losses and ties of every model, win_rate_adjusted = (W + T/2)/n, position bias, and ratings."""
    counts: dict[str, dict[str, int]] = {}
    battles, disagree, first, dropped = [], 0, 0.0, 0
    places: list[tuple[float, float]] = []
    for where, row in rows:
        games = [field(row, f"g{i}_winner", where) for i in (1, 2)]
        if wrong := [g for g in games if g not in (*_WINNERS, "error")]:
            raise UserError(f"unknown winner '{wrong[0]}'", where=where, fix=f"one of {', '.join(_WINNERS)}, error")
        if "error" in games:
            dropped += 1
            continue
        outcome = _WINNERS[games[0]] if games[0] == games[1] else 0.5
        names = str(field(row, "model_1", where)), str(field(row, "model_2", where))
        for name, y in zip(names, (outcome, 1.0 - outcome), strict=True):
            own = counts.setdefault(name, {"win": 0, "loss": 0, "tie": 0})
            own["win" if y == 1.0 else "loss" if y == 0.0 else "tie"] += 1
        battles.append(
            {"first": names[0], "second": names[1], "outcome": outcome, "prompt": str(row["question_id"]), "where": where}
        )
        disagree += games[0] != games[1]
        places.append((_WINNERS[games[0]], 1.0 - _WINNERS[games[1]]))  # game 2 shows model_2 first
        first += sum(places[-1]) / 2
    if not battles:
        raise UserError("every judgment is an error", where="MT-Bench judgments")
    refuse_place_bound(places, "MT-Bench judgments")
    models = {name: {**c, "win_rate_adjusted": (c["win"] + c["tie"] / 2) / sum(c.values())} for name, c in counts.items()}
    n = len(battles)
    about = {"n": n, "dropped": dropped, "consistency": 1 - disagree / n, "p_first": first / n}
    return {"models": dict(sorted(models.items(), key=lambda i: -i[1]["win_rate_adjusted"])), **about, **_rated(battles)}


def _rated(battles: Sequence[Row]) -> dict[str, Any]:
    found = ratings(battles)
    return {k: found[k] for k in ("ratings", "anchor", "prompts", "battles")}
