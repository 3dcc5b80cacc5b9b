"""Statistics of outcome files made elsewhere: who won, by how much, and what this design could have seen.

A file has a row per comparison with columns `arm`, `prompt`, `outcome` in [0, 1] and, where there are any, `seed`, `length`
and `baseline_length`; or, for battles of many players, `first`, `second`, `outcome` and `prompt`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.evaluation.rows import Row, read_rows
from evenhand.stats import (
    bradley_terry_ratings,
    equivalent,
    holm,
    length_controlled,
    mcnemar,
    paired_difference,
    permutation_test,
    resolved_by,
    sign_test,
    verdict,
    win_rate,
)

ALIASES = {
    "model": "arm", "policy": "arm", "method": "arm", "prompt_id": "prompt", "item": "prompt",
    "score": "outcome", "win": "outcome", "len_a": "length", "len_b": "baseline_length",
}  # fmt: skip
"""Other names of the columns; the last two are those of evenhand's own verdict files."""
_NUMBERS = ("outcome", "length", "baseline_length")


def read_outcomes(path: str | Path) -> list[Row]:
    """Rows of a CSV, JSON or JSONL file under the names above."""
    path = Path(path)
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            rows: list[Row] = list(csv.DictReader(file))
    else:
        rows = read_rows(path)
    return [_named(row, f"{path.name}[{i}]") for i, row in enumerate(rows)]


def _named(row: Mapping[str, Any], where: str) -> Row:
    named = {ALIASES.get(k, k): v for k, v in row.items()}
    for key in ("outcome", "prompt"):
        if named.get(key) in (None, ""):
            raise UserError(
                f"'{key}' is missing", where=where, fix="columns: arm, prompt, outcome[, seed, length, baseline_length]"
            )
    for key in _NUMBERS:
        if named.get(key) not in (None, ""):
            try:
                named[key] = float(named[key])
            except (TypeError, ValueError) as error:
                raise UserError(f"'{key}' is {named[key]!r}, not a number", where=where) from error
    return named


def is_battles(rows: Sequence[Row]) -> bool:
    return {"first", "second"} <= rows[0].keys()


def compare(rows: Sequence[Row], margin: float | None = None) -> dict[str, Any]:
    """Win rates, paired contrasts with Holm's correction, and the smallest difference each could have found.

    Arms must share prompts, and seeds where there are any: pairs are what makes small differences visible. `margin`: also say
    whether two arms are equivalent, their 90 % interval inside it. Right/wrong outcomes of one seed get McNemar's test too.
    """
    arms = list(dict.fromkeys(str(r["arm"]) for r in rows))
    tables = {a: _table([r for r in rows if str(r["arm"]) == a], a) for a in arms}
    _check_alike(tables)
    outcomes = {a: t["outcome"] for a, t in tables.items()}
    return {"arms": {a: _arm(tables[a]) for a in arms}, "contrasts": _contrasts(outcomes, margin)}


def _table(rows: Sequence[Row], arm: str) -> dict[str, Any]:
    """Columns as [seeds, prompts], with the names of both."""
    seeds = sorted({str(r.get("seed", "0")) for r in rows})
    prompts = sorted({str(r["prompt"]) for r in rows})
    place = {(s, p): (i, j) for i, s in enumerate(seeds) for j, p in enumerate(prompts)}
    table: dict[str, Any] = {"seeds": seeds, "prompts": prompts}
    for name in _NUMBERS:
        values = np.full((len(seeds), len(prompts)), np.nan)
        for r in rows:
            at = place[str(r.get("seed", "0")), str(r["prompt"])]
            if name == "outcome" and not np.isnan(values[at]):
                raise UserError(
                    f"prompt {r['prompt']} occurs twice", where=f"arm {arm}", fix="give a `seed` column, or average first"
                )
            values[at] = r.get(name) if r.get(name) not in (None, "") else np.nan
        table[name] = values
    if np.isnan(table["outcome"]).any():
        missing = int(np.isnan(table["outcome"]).sum())
        raise UserError(
            f"{missing} of {table['outcome'].size} cells (seed x prompt) have no outcome", where=f"arm {arm}",
            why="leaving them out would favour whoever failed on hard prompts", fix="judge them, or enter 0.5 for invalid ones",
        )  # fmt: skip
    return table


def _check_alike(tables: Mapping[str, Mapping[str, Any]]) -> None:
    first = next(iter(tables))
    for name, table in tables.items():
        for what in ("seeds", "prompts"):
            if table[what] != tables[first][what]:
                raise UserError(
                    f"'{name}' and '{first}' have different {what}", where="outcomes", fix="compare arms on the same cells"
                )


def _arm(table: Mapping[str, Any]) -> dict[str, Any]:
    won = asdict(win_rate(table["outcome"]))
    row = {
        "win_rate": won["estimate"],
        **{k: won[k] for k in ("ci95", "ci95_prompts_only", "per_seed", "ties", "n", "k", "note")},
    }
    if not (np.isnan(table["length"]).any() or np.isnan(table["baseline_length"]).any()):
        lc = length_controlled(table["outcome"], table["length"], table["baseline_length"])
        row["length_controlled"] = {"win_rate": lc.estimate, "ci95": lc.ci95, "form": lc.form, "note": lc.note}
    return row


def _contrasts(outcomes: Mapping[str, np.ndarray], margin: float | None) -> list[dict[str, Any]]:
    pairs = list(combinations(outcomes, 2))
    found = [paired_difference(outcomes[a], outcomes[b]) for a, b in pairs]
    rows = []
    for (a, b), d, p in zip(pairs, found, holm([d.p for d in found]), strict=True):
        gaps = (outcomes[a] - outcomes[b]).mean(axis=0)
        signs = sign_test(gaps)
        row: dict[str, Any] = {
            "a": a, "b": b, "difference": d.estimate, "ci95": d.ci95, "ci95_prompts_only": d.ci95_prompts_only,
            "per_seed": d.per_seed, "p": d.p, "p_holm": p, "p_permutation": permutation_test(gaps), "p_sign": signs.p,
            "minimum_detectable_difference": resolved_by(d), "verdict": verdict(d) if p < 0.05 else "inconclusive",
        }  # fmt: skip
        if len(outcomes[a]) == 1 and np.isin([outcomes[a], outcomes[b]], (0.0, 1.0)).all():
            row["mcnemar"] = asdict(mcnemar(outcomes[a][0], outcomes[b][0]))
        if margin is not None:
            row["equivalent"], row["margin"] = equivalent(d, margin), margin
        rows.append(row)
    return rows


def ratings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Bradley-Terry ratings of battles, best first, with intervals over prompts."""
    found = bradley_terry_ratings(
        [str(r["first"]) for r in rows], [str(r["second"]) for r in rows], [r["outcome"] for r in rows],
        prompt=[str(r["prompt"]) for r in rows],
    )  # fmt: skip
    return [asdict(p) for p in found.players]
