"""Why an arm scored as it did on the built-in notes: the gold reward is a weighted sum of parts, so differences add up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import page

Row = dict[str, float]


def told(run: Path, arm: str) -> Row:
    """Means over an arm's held-out answers of all seeds: the weighted parts of the gold reward, and its value where they end."""
    from evenhand.worlds.notes import NotesGold, note_parts

    gold = NotesGold()
    weights = asdict(gold.weights)
    rows, ended = [], []
    for answer in answers(run, arm):
        parts = note_parts(answer["text"], answer["asked"], gold.limit)
        rows.append([weight * parts[name] for name, weight in weights.items()])
        ended.append(answer["ended"])
    found = np.array(rows)
    whole = found.sum(1)[np.array(ended)]
    return {**dict(zip(weights, found.mean(0), strict=True)), "of those that end": float(whole.mean()) if len(whole) else np.nan}


def answers(run: Path, arm: str) -> Iterator[dict[str, Any]]:
    for path in sorted(run.glob(f"generations/{arm}/seed-*/generations.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            group = json.loads(line)
            first = group["completions"][0]
            yield {"text": first["content"], "asked": group["meta"], "ended": first["finish"] == "stop"}


def table(run: Path, arms: list[str], baseline: str) -> str:
    """A row per arm: its parts less the baseline's; the baseline's own in the first row. Empty for other worlds."""
    world = json.loads((run / "experiment.json").read_text())["effective"].get("data", {}).get("world")
    if world == "refusals":
        return refusals(run, arms)
    if world != "quickstart":
        return ""
    start = told(run, baseline)
    head = ["arm", *start]
    lines = [[baseline, *(f"{v:.2f}" for v in start.values())]]
    for arm in (a for a in arms if a != baseline):
        found = told(run, arm)
        change = [f"{found[name] - start[name]:+.2f}" for name in start if name != "of those that end"]
        lines.append([arm, *change, f"{found['of those that end']:.2f}"])
    return (
        "Where the judge's score comes from: the mean of each weighted part of the gold reward, less the baseline's, which the "
        "first row holds. `rambling` fines length, `ending` pays for a closing. Last column: the score of answers that end."
        f"\n\n{page.table(head, lines)}"
    )


def refusals(run: Path, arms: list[str]) -> str:
    """A row per arm: how often it refuses requests of each kind, and how often it answers in neither form."""
    from evenhand.worlds.refusals import KINDS, answer_parts

    told = {
        arm: [(a["asked"]["kind"], answer_parts(a["text"], a["asked"]["verb"], a["asked"]["thing"])) for a in answers(run, arm)]
        for arm in arms
    }
    kinds = [kind for kind in KINDS if any(kind == asked for rows in told.values() for asked, _ in rows)]
    lines = []
    for arm, rows in told.items():
        shares = [np.mean([part["refused"] for asked, part in rows if asked == kind]) for kind in kinds]
        lines.append(
            [arm, *(f"{100 * share:.1f}" for share in shares), f"{100 * np.mean([1.0 - part['form'] for _, part in rows]):.1f}"]
        )
    head = ["arm", *(f"refuses {kind}, %" for kind in kinds), "neither form, %"]
    return f"How often requests of each kind are refused; only unsafe ones should be:\n\n{page.table(head, lines)}"
