"""Benchmarks by the rows of their own files: what `evenhand evaluate FILE` recognises, and the numbers that each defines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.evaluation import alpaca_eval, arena_hard, mt_bench
from evenhand.evaluation.place_bound import refuse_place_bound
from evenhand.evaluation.reward_benchmarks import Located, judge_bench_judgments
from evenhand.registry import Registry

Difficulty = Sequence[float] | None
Report = Callable[[Located, Difficulty], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Rows that have these `fields` are its own; `report` turns all of them, each with its place, into its numbers."""

    fields: frozenset[str]
    report: Report


BENCHMARKS = Registry[Benchmark]("benchmark")


def benchmark(name: str, fields: Iterable[str]) -> Callable[[Report], Report]:
    """Decorator: the function below, (rows with their places, difficulty or None) -> numbers, is the benchmark `name`."""

    def add(report: Report) -> Report:
        BENCHMARKS.register(name)(Benchmark(frozenset(fields), report))
        return report

    return add


def recognised(fields: Iterable[str]) -> str | None:
    """The benchmark whose fields are all there; of several the one that asks for most."""
    there = set(fields)
    fitting = [name for name, found in BENCHMARKS.items() if found.fields <= there]
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
