"""Battles of many players (`first`, `second`, `outcome`, and where known `prompt`, `position`, lengths) made into ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evenhand.errors import UserError
from evenhand.evaluation.readers import Row
from evenhand.stats import bradley_terry_ratings, davidson_ratings


def ratings(rows: Sequence[Row], *, anchor: str | None = None, ties: bool = False, draws: int = 1000) -> dict[str, Any]:
    """Bradley-Terry ratings, best first, with intervals over prompts: all battles of a prompt are resampled together.

    `position` (+1 where `first` was shown first, -1 where second) adds its effect; `first_length` and `second_length` make
    ratings at equal length (gap / sum, scaled and not centred). `ties` adds Davidson's model, ties as an outcome of their own.
    """
    _check(rows)
    names = [str(r["first"]) for r in rows], [str(r["second"]) for r in rows]
    outcome = [float(r["outcome"]) for r in rows]
    prompt = [str(r["prompt"]) for r in rows] if _complete(rows, "prompt") else None
    sides = [_complete(rows, n) for n in ("first_length", "second_length")]
    found = bradley_terry_ratings(
        *names, outcome, prompt=prompt, anchor=anchor, draws=draws,
        position=[r["position"] for r in rows] if _complete(rows, "position") else None,
        style=[[_gap(r)] for r in rows] if all(sides) else None,
    )  # fmt: skip
    result: dict[str, Any] = {
        "ratings": [asdict(p) for p in found.players],
        "battles": len(rows),
        "prompts": len(set(prompt)) if prompt else None,
        "anchor": anchor,
    }
    if found.position_effect == found.position_effect:
        result["position_effect"] = found.position_effect
    if found.style_effects:
        result["length_effect"] = found.style_effects[0]
    if ties:
        fit = davidson_ratings(*names, outcome)
        result["davidson"] = {"theta": dict(sorted(fit.theta.items(), key=lambda item: -item[1])), "log_nu": fit.log_nu}
    return result


def _check(rows: Sequence[Row]) -> None:
    for r in rows:
        where = str(r.get("where", "battles"))
        if any(r.get(k) in (None, "") for k in ("first", "second")):
            raise UserError("a player has no name", where=where)
        if r["first"] == r["second"]:
            raise UserError(f"'{r['first']}' meets itself", where=where)
        if r.get("position", 0) not in (-1, 0, 1):
            raise UserError(
                f"'position' is {r['position']:g}", where=where, fix="1: first was shown first, -1: second was, 0: unknown"
            )


def _complete(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """True when every row has the field; UserError when only some have."""
    having = sum(r.get(name) not in (None, "") for r in rows)
    if 0 < having < len(rows):
        lacking = next(r for r in rows if r.get(name) in (None, ""))
        raise UserError(
            f"'{name}' is missing", where=str(lacking.get("where", "battles")), fix="give it in every row, or in none"
        )
    return having > 0


def _gap(row: Row) -> float:
    total = row["first_length"] + row["second_length"]
    return (row["first_length"] - row["second_length"]) / total if total > 0 else 0.0
