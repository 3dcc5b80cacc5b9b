"""A judge against labels: how often it prefers the answer that people, or the facts, call better."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.evaluation.pairs import category_of, sections
from evenhand.evaluation.readers import read_located
from evenhand.evaluation.reward_benchmarks import judge_bench_groups, kind_of
from evenhand.judges import Comparison, Judge, Verdict, account
from evenhand.judges.agreement import by_length
from evenhand.judges.verdict import Progress
from evenhand.stats import soft_wilson
from evenhand.types import Group


def labelled(path: Path) -> list[Group]:
    """The pairs of a file with their labels as scores: JudgeBench's, or preference pairs in any data format."""
    rows = read_located(path) if path.suffix in (".json", ".jsonl", ".gz") else []
    if rows and kind_of(rows[0][1]) == "JudgeBench":
        return judge_bench_groups(rows)
    from evenhand.data.load import load

    groups = [g for g in load(str(path), where=str(path)).groups if len(g.scores) > 1 and max(g.scores) > min(g.scores)]
    if not groups:
        raise UserError(
            "there is nothing to compare with", where=str(path),
            fix="give a second file of answers, a run directory, or pairs with labels",
        )  # fmt: skip
    return groups


def agreement(groups: Sequence[Group], judge: Judge, progress: Progress | None = None) -> tuple[dict[str, Any], list[Verdict]]:
    """Agreement with the labels, ties and unusable verdicts counting one half; by category; and the judge's account.

    `strict` counts only pairs where the better answer won over both orders together, as JudgeBench does. RewardBench's
    subsets also give its sections. `win_rate_longer` is the agreement where the better answer is the longer one.
    """
    comparisons = [better_and_worse(g) for g in groups]
    verdicts = judge(comparisons, progress)
    outcome = np.array([v.outcome for v in verdicts])
    names = [category_of(g) for g in groups]
    found: dict[str, Any] = {"agreement": float(outcome.mean()), "ci95": list(soft_wilson(outcome))}
    found["strict"] = float((outcome > 0.5).mean())
    if len(set(names)) > 1:
        by_name = {name: outcome[[n == name for n in names]] for name in dict.fromkeys(names)}
        found["categories"] = {
            name: {"agreement": float(y.mean()), "ci95": list(soft_wilson(y)), "strict": float((y > 0.5).mean()), "n": len(y)}
            for name, y in by_name.items()
        }
        found |= sections({name: float(y.mean()) for name, y in by_name.items()})
    return {**found, **account(verdicts), **by_length(verdicts, comparisons)}, verdicts


def better_and_worse(group: Group) -> Comparison:
    """Best and worst answer by the group's scores: `a` is the better one."""
    best = max(range(len(group.scores)), key=lambda i: group.scores[i])
    worst = min(range(len(group.scores)), key=lambda i: group.scores[i])
    return Comparison(prompt=group.prompt, a=group.completions[best], b=group.completions[worst])
