"""Benchmarks by the rows of their own files: what `evenhand evaluate FILE` recognises, with the numbers that each defines, and
what the arms of an experiment are asked (`evaluations: {NAME: {benchmark: ...}}`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.data.values import shown
from evenhand.errors import UserError
from evenhand.evaluation import alpaca_eval, arena_hard, conversations, mt_bench
from evenhand.evaluation.place_bound import refuse_place_bound
from evenhand.evaluation.readers import field, read_located
from evenhand.evaluation.reward_benchmarks import Located, judge_bench_judgments
from evenhand.registry import Registry
from evenhand.types import Message, Prompt

Difficulty = Sequence[float] | None
Report = Callable[[Located, Difficulty], dict[str, Any]]
Questions = Callable[[Located], list[Prompt]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Rows that have these `fields` are its own; `report` turns all of them, each with its place, into its numbers. `questions`
    turns the rows of its file of questions into prompts: what the arms of an experiment are asked. It has one or both."""

    fields: frozenset[str] = frozenset()
    report: Report | None = None
    questions: Questions | None = None


BENCHMARKS = Registry[Benchmark]("benchmark")


def benchmark(name: str, fields: Iterable[str], questions: Questions | None = None) -> Callable[[Report], Report]:
    """Decorator: the function below, (rows with their places, difficulty or None) -> numbers, is the benchmark `name`.

    `questions`, rows with their places -> prompts, lets the arms of an experiment answer it.
    """

    def add(report: Report) -> Report:
        BENCHMARKS.register(name)(Benchmark(frozenset(fields), report, questions))
        return report

    return add


def asked(name: str) -> Callable[[Questions], Questions]:
    """Decorator: the function below, (rows with their places) -> prompts, is what arms are asked in the benchmark `name`."""

    def add(questions: Questions) -> Questions:
        BENCHMARKS.register(name)(Benchmark(questions=questions))
        return questions

    return add


def askable() -> list[str]:
    """The benchmarks that arms can answer."""
    return [name for name, found in BENCHMARKS.items() if found.questions is not None]


def questions_of(name: str, path: str | Path) -> list[Prompt]:
    """The questions of a benchmark in its own file. Raises: UserError for a file that is none of its."""
    found = BENCHMARKS.find(name, where="benchmark").questions
    assert found is not None, "the checks see to it"
    return found(read_located(path))


def report_of(name: str, rows: Located, difficulty: Difficulty = None) -> dict[str, Any]:
    """The numbers of a benchmark whose rows were recognised."""
    report = BENCHMARKS[name].report
    assert report is not None, "only those are recognised"
    return report(rows, difficulty)


def recognised(fields: Iterable[str]) -> str | None:
    """The benchmark whose fields are all there; of several the one that asks for most."""
    there = set(fields)
    fitting = [name for name, found in BENCHMARKS.items() if found.report is not None and found.fields <= there]
    return max(fitting, key=lambda name: len(BENCHMARKS[name].fields), default=None)


@benchmark("AlpacaEval annotations", ("instruction", "output_1", "output_2", "preference"))
def _alpaca_eval(rows: Located, difficulty: Difficulty) -> dict[str, Any]:
    return {"leaderboard": alpaca_eval.leaderboard([row for _, row in rows], difficulty)}


@benchmark("Arena-Hard judgments", ("uid", "games"))
def _arena_hard(rows: Located, difficulty: Difficulty) -> dict[str, Any]:
    by_model: dict[str, list[dict[str, Any]]] = {}
    for _, row in rows:
        by_model.setdefault(str(row["model"]), []).append(dict(row))
    refuse_place_bound(arena_hard.first_preferred([row for own in by_model.values() for row in own]), "Arena-Hard judgments")
    return {"scores": {model: arena_hard.score(own) for model, own in by_model.items()}}


@benchmark("Arena-Hard v0.1 judgments", ("question_id", "model", "games"))
def _arena_hard_old(rows: Located, difficulty: Difficulty) -> dict[str, Any]:
    return _arena_hard(rows, difficulty)


@benchmark("MT-Bench judgments", mt_bench.SINGLE)
def _mt_bench(rows: Located, difficulty: Difficulty) -> dict[str, Any]:
    return {"models": mt_bench.grades(rows)}


@benchmark("MT-Bench pair judgments", mt_bench.PAIR)
def _mt_bench_pairs(rows: Located, difficulty: Difficulty) -> dict[str, Any]:
    return mt_bench.pair_results(rows)


@benchmark("JudgeBench judgments", ("judgments", "label", "response_A"))
def _judge_bench(rows: Located, difficulty: Difficulty) -> dict[str, Any]:
    return judge_bench_judgments(rows)


@asked("alpaca_eval")
def _alpaca_questions(rows: Located) -> list[Prompt]:
    found = []
    for where, row in rows:
        text = _text(field(row, "instruction", where), "instruction", where) + (f"\n\n{row['input']}" if row.get("input") else "")
        found.append(Prompt(content=(Message("user", text),), meta={"dataset": str(row.get("dataset", ""))}))
    return found


@asked("arena_hard")
def _arena_questions(rows: Located) -> list[Prompt]:
    """v2 has `uid` and `prompt`, v0.1 `question_id` and turns that are objects."""
    found: dict[str, Prompt] = {}
    for where, row in rows:
        key = str(field(row, "uid" if "uid" in row else "question_id", where))
        if key in found:
            raise UserError(f"the question '{key}' is there twice", where=where, fix="leave one of them")
        meta = {"category": str(row.get("category", row.get("cluster", "")))}
        found[key] = Prompt(content=(Message("user", _arena_text(row, where)),), id=key, meta=meta)
    return list(found.values())


def _arena_text(row: Mapping[str, Any], where: str) -> str:
    if "turns" not in row:
        return _text(field(row, "prompt", where), "prompt", where)
    turns = row["turns"]
    first = turns[0] if isinstance(turns, list) and turns else None
    return _text(first.get("content") if isinstance(first, Mapping) else None, "turns[0].content", where)


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"expected a question as text in '{name}', found {shown(value)}", where=where, fix="correct the row")
    return value


@asked("mt_bench")
def _mt_bench_questions(rows: Located) -> list[Prompt]:
    return conversations.first_turns(mt_bench.questions(rows))
