"""Labels of several annotators or judges on the same items, from tables made elsewhere: a row per rating, or one per item."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from evenhand.errors import UserError, did_you_mean
from evenhand.evaluation.labelled_pairs import FIRST, LABELS, QUESTIONS, RATERS, SECOND, SIDES, TIE
from evenhand.evaluation.readers import Row, read_located
from evenhand.judges.agreement import coefficients
from evenhand.stats.agreement import Level

ITEMS = ("item", "item_id", "prompt_id", "question_id", "pair", "pair_id", "id", "uid", "prompt", "question", "instruction")
RATINGS = (*LABELS, "rating", "score", "verdict", "grade", "vote", "outcome")
NOT_RATERS = {*ITEMS, *QUESTIONS, *(name for pair in SIDES for name in pair)}
MOST_CATEGORIES = 30
"""A column with more different words than this holds no labels."""
LEVELS = get_args(Level)
FORMS = (
    f"a row per rating (an item: {', '.join(ITEMS[:5])}, ...; a rater: {', '.join(RATERS[:4])}, ...; a label: "
    f"{', '.join(RATINGS[:3])}, rating, score, ...), or a row per item with a column per rater"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedItems:
    """Labels by rater over the same items, as numbers; NaN where one has none. `level`: how far apart two labels are.

    `labels`: what the numbers stand for, where the file has words.
    """

    by_rater: Mapping[str, Sequence[float]]
    level: Level
    labels: Mapping[str, float]


def read_ratings(path: str | Path, columns: Sequence[str] = ()) -> RatedItems:
    """The ratings of a CSV, TSV, JSON or JSONL file; `columns` names the raters' columns of a table with a row per item.

    Labels that are all numbers are ordinal; so are those that name a side of a pair or a tie (1, 1/2, 0: a tie lies between the
    sides); other words are categories without an order. Empty cells and null are no rating.

    Raises: UserError without two raters, and where a rater labels an item twice.
    """
    rows = read_located(path)
    item, rater, label = (next((n for n in names if n in rows[0][1]), None) for names in (ITEMS, RATERS, RATINGS))
    cells = (
        _long(rows, item, rater, label)
        if item and rater and label and not columns
        else _wide(rows, columns or [n for n in rows[0][1] if n not in NOT_RATERS])
    )
    raters, items = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    if len(raters) < 2:
        raise UserError("holds the labels of fewer than two raters", where=str(path), fix=FORMS)
    level, codes = _codes([value for value, _ in cells.values()])
    values = {r: [codes[_said(cells[r, i][0])] if (r, i) in cells else math.nan for i in items] for r in raters}
    words = {} if all(_number(word) is not None for word in codes) else codes
    return RatedItems(by_rater=values, level=level, labels=words)


def agreement(path: str | Path, columns: Sequence[str] = (), level: str = "") -> dict[str, Any]:
    """Coefficients of agreement of a file's raters, as plain values; `level` in place of what the labels look like."""
    read = read_ratings(path, columns)
    if level and level not in LEVELS:
        raise UserError(f"unknown level '{level}'", where="--level", fix=did_you_mean(level, LEVELS))
    if level == "interval" and read.labels:
        raise UserError("words have no distances", where="--level", fix="use nominal or ordinal")
    chosen = cast(Level, level or read.level)
    numbers = sorted({v for values in read.by_rater.values() for v in values if not math.isnan(v)})
    words = [" = ".join(w for w, v in read.labels.items() if v == n) or f"{n:g}" for n in numbers]
    raters = {name: {"n": sum(not math.isnan(v) for v in values)} for name, values in read.by_rater.items()}
    items = len(next(iter(read.by_rater.values())))
    return {"items": items, "raters": raters, "labels": words, "level": chosen, **coefficients(read.by_rater, chosen)}


Cells = Mapping[tuple[str, str], tuple[Any, str]]
"""(rater, item) -> the label and its place."""


def _long(rows: Sequence[tuple[str, Row]], item: str, rater: str, label: str) -> Cells:
    found: dict[tuple[str, str], tuple[Any, str]] = {}
    for where, row in rows:
        missing = next((name for name in (item, rater, label) if name not in row), None)
        if missing is not None:
            raise UserError(f"'{missing}' is missing", where=where, fix=f"the row has: {', '.join(row)}")
        key = str(row[rater]), str(row[item])
        if _empty(row[label]):
            continue
        if key in found:
            raise UserError(
                f"'{key[0]}' labels item '{key[1]:.40}' twice", where=where, why=f"first at {found[key][1]}",
                fix="keep one of them; a judge that was asked again is a rater of another name",
            )  # fmt: skip
        found[key] = row[label], where
    return found


def _wide(rows: Sequence[tuple[str, Row]], names: Sequence[str]) -> Cells:
    for name in names:
        if name not in rows[0][1]:
            raise UserError(f"no column '{name}'", where=rows[0][0], fix=f"the row has: {', '.join(rows[0][1])}")
        words = {word for _, row in rows if _number(word := _said(row.get(name))) is None}
        if len(words) > MOST_CATEGORIES:
            raise UserError(
                f"column '{name}' has {len(words)} different words: these are no labels", where=rows[0][0],
                fix="name the raters' columns with --rater",
            )  # fmt: skip
    return {
        (name, str(number)): (row[name], where)
        for number, (where, row) in enumerate(rows)
        for name in names
        if not _empty(row.get(name))
    }


def _codes(values: Sequence[Any]) -> tuple[Level, dict[str, float]]:
    """The level of the labels, and the number of each."""
    said = list(dict.fromkeys(_said(v) for v in values))
    numbers = {word: _number(word) for word in said}
    if all(n is not None for n in numbers.values()):
        return "ordinal", {word: n for word, n in numbers.items() if n is not None}
    sides = {word: side for words, side in ((FIRST, 1.0), (SECOND, 0.0), (TIE, 0.5)) for word in words}
    if all(word in sides for word in said):
        return "ordinal", {word: sides[word] for word in said}
    return "nominal", {word: float(n) for n, word in enumerate(sorted(said))}


def _said(value: Any) -> str:
    return str(value).strip().lower()


def _number(word: str) -> float | None:
    try:
        found = float(word)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _empty(value: Any) -> bool:
    return value is None or _said(value) in ("", "nan", "none", "null", "n/a")
