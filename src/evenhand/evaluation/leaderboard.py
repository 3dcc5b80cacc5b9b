"""Many models against one baseline, and many reward models on one benchmark: a line each, best first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evenhand.evaluation import pairs as on_pairs
from evenhand.evaluation.judging import summary
from evenhand.evaluation.outcomes import by_question, question_of
from evenhand.evaluation.reward_benchmarks import Located, answer_scorer, report
from evenhand.judges import Comparison, Verdict
from evenhand.stats import Difference, paired_difference
from evenhand.stats.family import judged
from evenhand.types import Group

Judgements = tuple[Sequence[Comparison], Sequence[Verdict]]


def leaderboard(models: Mapping[str, Judgements], baseline: str) -> list[dict[str, Any]]:
    """Per model its win rate against `baseline` as it is, at equal length, at equal style, each with its interval, and a verdict.

    The verdicts are one family: Holm's p over all models, `ci95_simultaneous` of all win rates together. Turns of one question
    are one outcome, their mean.
    """
    found = {name: summary(*own) for name, own in models.items()}
    gaps = [_gap(*own) for own in models.values()]
    rows = []
    for (name, row), alone, gap in zip(found.items(), gaps, judged(gaps, ["models"] * len(gaps)), strict=True):
        rows.append({
            "model": name, "baseline": baseline, **{k: _known(row.get(k)) for k in _COLUMNS}, "ci95": _rates(alone.ci95),
            "ci95_simultaneous": _rates(gap.ci95_simultaneous), "p_holm": gap.p_holm, "verdict": gap.verdict,
        })  # fmt: skip
    return sorted(rows, key=lambda row: -row["win_rate"])


def _gap(comparisons: Sequence[Comparison], verdicts: Sequence[Verdict]) -> Difference:
    """A model's win rate less one half, over questions."""
    y = by_question([v.outcome for v in verdicts], [question_of(c.prompt) for c in comparisons])[None]
    return paired_difference(y, np.full_like(y, 0.5))


def _rates(differences: Sequence[float] | None) -> list[float] | None:
    """An interval of a rate less one half, as one of the rate."""
    return None if differences is None else [end + 0.5 for end in differences]


def _known(value: Any) -> Any:
    """A controlled win rate that could not be had (its note says why) as None: JSON has no NaN."""
    if not isinstance(value, Mapping) or value.get("win_rate") is None or value["win_rate"] == value["win_rate"]:
        return value
    return {**value, "win_rate": None, "ci95": None}


_COLUMNS = ("win_rate", "ci95", "length_controlled", "style_controlled", "n", "questions", "ties", "invalid", "mean_chars")


def reward_leaderboard(
    kind: str | None, rows: Located, groups: Sequence[Group], scorers: Mapping[str, on_pairs.Scorer], category: str | None = None
) -> list[dict[str, Any]]:
    """Per reward model its score on one benchmark with its interval, and those of its sections: flat lines, best first.

    `kind` and `rows` are a benchmark's of its own form; without a kind, `groups` are preference pairs, RewardBench's among them.
    """
    lines = []
    for name, scorer in scorers.items():
        if kind is not None:
            lines.append({"model": name, "benchmark": kind, **_headline(kind, report(kind, rows, answer_scorer(scorer)))})
            continue
        told = on_pairs.report(on_pairs.score_pairs(groups, scorer, category=category))
        line = {"score": told["accuracy"], "ci95": list(told["ci95"]), "n": told["n"], "log_loss": told["log_loss"]}
        if "overall" in told:
            line |= {"score": told["overall"], "ci95": told["overall_ci95"], "sections": told["sections"]}
        lines.append({"model": name, "benchmark": "RewardBench" if "overall" in told else "pairs", **line})
    return sorted(lines, key=lambda line: -(line["score"] if line["score"] is not None else -1.0))


def _headline(kind: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The benchmark's own score, None where parts of it are absent, with its interval and its sections."""
    if kind == "RewardBench 2":
        return {"score": found.get("overall"), "ci95": found.get("overall_ci95"), "sections": found["subsets"]}
    if kind == "RM-Bench":
        whole, ends = found.get("overall"), found.get("overall_ci95")
        sections = {name: row["average"] for name, row in found["domains"].items()}
        return {"score": whole and whole["average"], "ci95": ends and ends["average"], "sections": sections}
    overall = found["overall"]
    sections = {name: row["accuracy"] for name, row in found["categories"].items()}
    return {"score": overall["accuracy"], "ci95": overall["ci95"], "sections": sections}
