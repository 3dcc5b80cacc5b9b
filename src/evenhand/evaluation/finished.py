"""A finished run seen from outside: which arms answered what, and who the baseline is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import read_groups
from evenhand.errors import UserError
from evenhand.types import Group


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """`answers[arm][seed]`: groups with one answer each, over the same held-out prompts."""

    folder: Path
    baseline: str
    answers: Mapping[str, Mapping[str, list[Group]]]
    results: Mapping[str, Any]


def is_run(path: str | Path) -> bool:
    return (Path(path) / "results.json").is_file()


def open_run(folder: str | Path) -> FinishedRun:
    """The run directory's results and generations."""
    folder = Path(folder)
    if not is_run(folder):
        raise UserError("has no results.json", where=str(folder), fix="give a run directory; run the experiment first")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    answers: dict[str, dict[str, list[Group]]] = {}
    for path in sorted(folder.glob("generations/*/seed-*/generations.jsonl")):
        answers.setdefault(path.parts[-3], {})[path.parts[-2].removeprefix("seed-")] = read_groups(path)
    if not answers:
        raise UserError("has no generations", where=str(folder), fix="run `evenhand run` on it again; finished stages are reused")
    order = [a for a in results.get("arms", {}) if a in answers]
    return FinishedRun(folder, results["baseline"], {a: answers[a] for a in order}, results)
