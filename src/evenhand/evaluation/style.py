"""How both sides of a comparison are dressed, and the win rate if they were dressed alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.evaluation import arena_hard
from evenhand.evaluation.answers import read_answers
from evenhand.evaluation.equal_style import at_equal_style
from evenhand.evaluation.outcome_files import read_outcomes
from evenhand.evaluation.readers import Row, read_located
from evenhand.stats import style_gaps, style_of
from evenhand.stats.style import FEATURES, Style

Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StyledComparison:
    """One comparison with both texts. `weight` is 3 for Arena-Hard's strong verdicts, else 1."""

    model: str
    prompt: str
    outcome: float
    text: str
    baseline: str
    weight: float = 1.0


def style_report(path: Path, answers: Path | None = None, baseline: Path | None = None) -> dict[str, Any]:
    """Per model: raw win rate, the win rates at equal style and at equal length, the effects, and both sides' mean style.

    `path` holds AlpacaEval annotations, or outcomes with columns `text` and `baseline_text`, and needs nothing else; for
    Arena-Hard judgments and verdicts without texts, `answers` and `baseline` are the files of both sides' answers.
    """
    by_model: dict[str, list[StyledComparison]] = {}
    for one in read_judged(path, answers, baseline):
        by_model.setdefault(one.model, []).append(one)
    return {"kind": "style", "models": {name: _of_model(rows) for name, rows in by_model.items()}}


def read_judged(path: Path, answers: Path | None, baseline: Path | None) -> list[StyledComparison]:
    """The comparisons of a file with their texts; UserError where a text is not known."""
    rows = read_located(path)
    if {"output_1", "output_2", "preference"} <= rows[0][1].keys():
        return [_annotation(row, where) for where, row in rows if row.get("preference") is not None]
    sides = None if answers is None or baseline is None else (_texts(answers), _texts(baseline))
    if "games" in rows[0][1] and rows[0][1].keys() & {"uid", "question_id"}:
        if sides is None:
            raise UserError(
                "holds no answers", where=str(path), fix="add --answers FILE --baseline FILE, the answers of both sides"
            )
        model = str(rows[0][1].get("model", path.stem))
        games = arena_hard.battles([row for _, row in rows])
        return [StyledComparison(model, uid, y, _text(sides[0], uid), _text(sides[1], uid), w) for uid, y, w in games]
    return [_outcome(row, sides) for row in read_outcomes(path)]


def _annotation(row: Row, where: str) -> StyledComparison:
    preference = float(row["preference"])
    if not (preference == 0.0 or 1.0 <= preference <= 2.0):
        raise UserError(f"'preference' is {preference:g}, not in [1, 2]", where=where)
    outcome = 0.5 if preference == 0.0 else preference - 1.0
    return StyledComparison(str(row["generator_2"]), str(row["instruction"]), outcome, row["output_2"], row["output_1"])


def _outcome(row: Row, sides: tuple[Texts, Texts] | None) -> StyledComparison:
    key, texts = str(row["prompt"]), (row.get("text"), row.get("baseline_text"))
    if not all(isinstance(t, str) for t in texts):
        if sides is None:
            raise UserError(
                "the row has no texts", where=row["where"],
                fix="columns `text` and `baseline_text`, or --answers FILE --baseline FILE",
            )  # fmt: skip
        texts = _text(sides[0], key), _text(sides[1], key)
    return StyledComparison(str(row["arm"]), key, row["outcome"], str(texts[0]), str(texts[1]))


def _texts(path: Path) -> Texts:
    return {g.prompt.id: g.completions[0].text for g in read_answers(path)[1] if g.completions}


def _text(texts: Texts, key: str) -> str:
    if key not in texts:
        raise UserError(f"there is no answer to prompt {key}", where="answers", fix="give the files that were judged")
    return texts[key]


def _of_model(rows: Sequence[StyledComparison]) -> dict[str, Any]:
    ours, theirs = [style_of(r.text) for r in rows], [style_of(r.baseline) for r in rows]
    outcome, gaps = np.array([r.outcome for r in rows]), style_gaps(ours, theirs)
    about: dict[str, Any] = {"prompt": [r.prompt for r in rows], "weight": [r.weight for r in rows]}
    found: dict[str, Any] = {"n": len({r.prompt for r in rows}), "win_rate": float(np.average(outcome, weights=about["weight"]))}
    for name, features in (("at_equal_style", FEATURES), ("at_equal_length", ("length",))):
        fit = at_equal_style(outcome, gaps, features=features, **about)
        found[name] = fit if "ci95" in fit else {**fit, "win_rate": math.nan}
    return found | {"style": _means(ours), "baseline_style": _means(theirs)}


def _means(styles: Sequence[Style]) -> dict[str, float]:
    fields = ("length", "headers", "lists", "bold")
    return {name: float(np.mean([getattr(s, name) for s in styles])) for name in fields}
