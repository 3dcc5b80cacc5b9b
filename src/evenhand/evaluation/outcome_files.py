"""Outcome files made elsewhere, read strictly: what is wrong is named by file, line and field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.evaluation.labelled_pairs import outcome, winner
from evenhand.evaluation.readers import Row, field, read_located

ALIASES = {
    "model": "arm", "policy": "arm", "method": "arm", "prompt_id": "prompt", "item": "prompt", "question_id": "prompt",
    "uid": "prompt", "score": "outcome", "win": "outcome", "correct": "outcome", "len_a": "length", "len_b": "baseline_length",
    "model_a": "first", "model_b": "second",
}  # fmt: skip
"""Other names of the columns. A file's own column of the right name goes before an alias of it."""
NUMBERS = ("outcome", "length", "baseline_length", "difficulty", "position", "first_length", "second_length")
COMPARISONS = "arm, prompt, outcome[, seed, sample, cluster, length, baseline_length, difficulty]"
BATTLES = "first, second, outcome[, prompt, position, first_length, second_length]"


def read_outcomes(path: str | Path, *, value: str = "outcome", cluster: str = "cluster") -> list[Row]:
    """Rows of a CSV, TSV, JSON or JSONL file with columns named as in `COMPARISONS` or `BATTLES`, each with its place in `where`.

    `value` names the column that is compared: outcomes lie in [0, 1], any other column may hold any number (a reward, say).
    `cluster` names the column of a prompt's topic or document. Without an `arm` all rows belong to one, called by the file.
    """
    path = Path(path)
    found = read_located(path)
    wanted = {value: "outcome", cluster: "cluster"}
    rows = [_named(battle(row, where), ALIASES, wanted, where) for where, row in found]
    if value != "outcome":
        for where, row in found:
            field(row, value, where)
    for row in rows:
        _check(row, bounded=value == "outcome", shown=value)
    if not is_battles(rows):
        rows = [row if row.get("arm") not in (None, "") else {**row, "arm": path.name.split(".")[0]} for row in rows]
    return rows


def is_battles(rows: Sequence[Mapping[str, Any]]) -> bool:
    """True when rows name two players instead of one arm."""
    return {"first", "second"} <= rows[0].keys()


def battle(row: Row, where: str) -> Row:
    """An arena's row with its winner as the outcome of `model_a`; any other row as it is."""
    if not {"model_a", "model_b"} <= row.keys() or "outcome" in row:
        return row
    if (label := winner(row)) is None:
        return row
    return {**row, "outcome": outcome(label, None, where)}


def _named(row: Row, names: Mapping[str, str], wanted: Mapping[str, str], where: str) -> Row:
    """The row under our names: the columns asked for, else those called so, else an alias; two aliases must agree."""
    named: Row = {"where": where, **{k: v for k, v in row.items() if k not in names}}
    for key, value in row.items():
        name = names.get(key)
        if name is None or name in row:
            continue
        if name in named and named[name] != value:
            raise UserError(f"two columns could be the '{name}' ('{key}' is one)", where=where, fix=f"call one of them '{name}'")
        named[name] = value
    return named | {name: row[key] for key, name in wanted.items() if key in row}


def _check(row: Row, *, bounded: bool, shown: str) -> None:
    where = row["where"]
    needed = ("outcome",) if is_battles([row]) else ("prompt", "outcome")
    for key in needed:
        if row.get(key) in (None, ""):
            name = shown if key == "outcome" else key
            form = BATTLES if is_battles([row]) else COMPARISONS
            raise UserError(f"'{name}' is missing", where=where, fix=f"columns: {form}")
    for key in NUMBERS:
        if row.get(key) in (None, ""):
            row.pop(key, None)
            continue
        row[key] = _number(row[key], shown if key == "outcome" else key, where)
    if bounded and not 0.0 <= row["outcome"] <= 1.0:
        raise UserError(
            f"'{shown}' is {row['outcome']:g}, not in [0, 1]", where=where,
            fix="1 win, 0.5 tie, 0 loss; AlpacaEval preferences: subtract 1; others: `evenhand stats compare --value COLUMN`",
        )  # fmt: skip


def _number(value: Any, name: str, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"'{name}' is {value!r}, not a number", where=where) from error
    if not math.isfinite(number):
        raise UserError(
            f"'{name}' is {value!r}", where=where, why="a row without a value cannot be left out silently",
            fix="resolve it first: an unusable verdict counts 0.5",
        )  # fmt: skip
    return number
