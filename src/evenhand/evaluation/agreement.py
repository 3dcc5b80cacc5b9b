"""A judge against labels: how often it prefers the answer that people, or the facts, call better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.evaluation.labelled_pairs import SIZES, LabelledPair, is_labelled, read_pairs
from evenhand.evaluation.outcomes import clustered, question_of
from evenhand.evaluation.pairs import category_of, sections
from evenhand.evaluation.readers import is_table, read_located
from evenhand.evaluation.reward_benchmarks import judge_bench_groups, kind_of
from evenhand.judges import Comparison, Judge, Verdict, account
from evenhand.judges.agreement import by_length, coefficients, sides
from evenhand.judges.verdict import Progress
from evenhand.stats import soft_wilson
from evenhand.types import Group

MOST_RATERS = 12
"""More names than this are a crowd, whose labels are taken together."""


def labelled(path: Path) -> list[LabelledPair]:
    """The pairs of a file with their labels: JudgeBench's, two answers and a label, or preference pairs in any data format."""
    rows = read_located(path) if path.suffix in (".json", ".jsonl", ".gz") or is_table(path) else []
    if rows and kind_of(rows[0][1]) == "JudgeBench":
        return [LabelledPair(group) for group in judge_bench_groups(rows)]
    if rows and is_labelled(rows[0][1]):
        return read_pairs(rows)
    from evenhand.data.load import load

    groups = [g for g in load(str(path), where=str(path)).groups if len(g.scores) > 1 and max(g.scores) > min(g.scores)]
    if not groups:
        raise UserError(
            "there is nothing to compare with", where=str(path),
            fix=f"give a second file of answers, a run directory, or pairs with labels ({SIZES})",
        )  # fmt: skip
    return [LabelledPair(group) for group in groups]


def agreement(
    pairs: Sequence[LabelledPair], judge: Judge, progress: Progress | None = None
) -> tuple[dict[str, Any], list[Verdict]]:
    """Agreement with the labels, ties and unusable verdicts counting one half; by category; and the judge's account.

    `strict` counts only pairs where the better answer won over both orders together, as JudgeBench does. RewardBench's
    subsets also give its sections. `win_rate_longer` is the agreement where the better answer is the longer one. Pairs whose
    labels tie are judged, but count in `annotators` alone: there the judge is one rater beside the people, see `with_people`.
    """
    comparisons = [better_and_worse(p.group) for p in pairs]
    verdicts = judge(comparisons, progress)
    decided = [i for i, p in enumerate(pairs) if max(p.group.scores) > min(p.group.scores)]
    if not decided:
        raise UserError("every label is a tie", where="labels", fix="give pairs of which one answer is better")
    outcome = np.array([verdicts[i].outcome for i in decided])
    names = [category_of(pairs[i].group) for i in decided]
    found: dict[str, Any] = {"agreement": float(outcome.mean()), "ci95": list(_interval(outcome, [pairs[i] for i in decided]))}
    found["strict"] = float((outcome > 0.5).mean())
    if len(decided) < len(pairs):
        found["label_ties"] = len(pairs) - len(decided)
    if len(set(names)) > 1:
        by_name = {name: outcome[[n == name for n in names]] for name in dict.fromkeys(names)}
        found["categories"] = {
            name: {"agreement": float(y.mean()), "ci95": list(soft_wilson(y)), "strict": float((y > 0.5).mean()), "n": len(y)}
            for name, y in by_name.items()
        }
        found |= sections(by_name)
    if any(p.labels for p in pairs):
        found |= with_people(pairs, verdicts)
    counted = [verdicts[i] for i in decided]
    return {**found, **account(counted), **by_length(counted, [comparisons[i] for i in decided])}, verdicts


def with_people(pairs: Sequence[LabelledPair], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The judge as one rater beside those who labelled: coefficients of agreement with each, and of the people alone.

    Every rating is a side of the file, or a tie: turned to the better answer, chance would explain all agreement. `people` is
    None where one person, or nobody by name, labelled.
    """
    raters = list(dict.fromkeys(name for p in pairs for name in p.labels))
    if len(raters) > MOST_RATERS:  # a crowd: who rated is not what is asked
        raters = []
    called = {name: name or "labels" for name in raters}
    ratings = {called[n]: sides([p.labels.get(n, math.nan) for p in pairs]) for n in raters}
    if not raters:
        ratings = {"labels": sides([p.group.scores[0] for p in pairs])}
    judged = sides([math.nan if v.invalid else _of_first(p, v.outcome) for p, v in zip(pairs, verdicts, strict=True)])
    people = coefficients(ratings) if len(ratings) > 1 else None
    return {"annotators": {"with_judge": coefficients({"judge": judged, **ratings}), "people": people}}


def _of_first(pair: LabelledPair, outcome: float) -> float:
    """An outcome on the answer that is called better as one on the first answer of the file."""
    scores = pair.group.scores
    return outcome if scores[0] >= scores[1] else 1.0 - outcome


def _interval(outcome: np.ndarray, pairs: Sequence[LabelledPair]) -> tuple[float, float]:
    """Over pairs, or over questions where several pairs share one: turns and votes of a question belong together."""
    clusters = [question_of(p.group.prompt) for p in pairs]
    if len(set(clusters)) == len(clusters) or len(set(clusters)) < 2:
        return soft_wilson(outcome)
    low, high = clustered(outcome, clusters)["ci95"]
    return max(low, 0.0), min(high, 1.0)


def better_and_worse(group: Group) -> Comparison:
    """Best and worst answer by the group's scores: `a` is the better one."""
    best = max(range(len(group.scores)), key=lambda i: group.scores[i])
    worst = min(range(len(group.scores)), key=lambda i: group.scores[i])
    return Comparison(prompt=group.prompt, a=group.completions[best], b=group.completions[worst])
