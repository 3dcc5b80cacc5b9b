"""Files that people keep beside their data and that hold no training rows: judge prompts, reference answers, verdicts, numbers.

`evenhand data describe` says what they are; nothing is trained on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evenhand.data.decode import parse_json, read_text
from evenhand.data.readers import good_rows, type_of
from evenhand.data.values import listed
from evenhand.errors import UserError

KNOWN: Mapping[str, tuple[tuple[str, ...], str]] = {
    "MT-Bench judge prompts": (("name", "type", "system_prompt", "prompt_template"), "templates for a judging model"),
    "MT-Bench answers": (("question_id", "model_id", "choices"), "a model's answers; `evenhand judge` compares such files"),
    "Arena-Hard answers": (("uid", "ans_id", "model", "messages"), "a model's answers; `evenhand judge` compares such files"),
    "AlpacaEval annotations": (("instruction", "output_1", "output_2", "preference"), "verdicts of a judge"),
}
"""By name: the columns that tell it, and what it is for."""


def foreign(path: Path) -> str | None:
    """What a file is when it holds no training data; None for one that nobody here knows."""
    if not path.is_file():
        return None
    kind = type_of(path)
    if kind == "json" and (found := _table_by_name(path)):
        return found
    try:
        rows = [row for _, row in good_rows(path)]
    except UserError:
        return _numbers(path) if kind == "csv" else None
    if kind in ("csv", "tsv"):
        return _numbers(path)
    seen = set.intersection(*(set(row) for row in rows)) if rows else set()
    for name, (columns, use) in KNOWN.items():
        if seen.issuperset(columns):
            return f"{name}, {len(rows)} rows: {use}; no training data"
    return None


def _table_by_name(path: Path) -> str | None:
    """An object of objects, such as results by model."""
    try:
        data = parse_json(read_text(path, "utf-8"), path.name, fix=lambda error: "repair the file")
    except UserError:
        return None
    if not isinstance(data, Mapping) or not all(isinstance(v, Mapping) for v in data.values()):
        return None
    fields = list(dict.fromkeys(f for v in data.values() for f in v))
    longest = max((len(v) for each in data.values() for v in each.values() if isinstance(v, list | tuple)), default=0)
    values = f", up to {longest} values each" if longest else ""
    return (
        f"results by name, {len(data)} names ({listed(list(data)[:3])}, ...), fields: {listed(fields)}{values}; no training data"
    )


def _numbers(path: Path) -> str | None:
    """A table of numbers, with or without a line of names."""
    lines = [line for line in read_text(path, "utf-8").split("\n") if line.strip()]
    cells = [line.split("," if type_of(path) == "csv" else "\t") for line in lines]
    if not cells or len({len(row) for row in cells}) != 1:
        return None
    named = not _all_numbers(cells[0])
    body = cells[1:] if named else cells
    if not body or not all(map(_all_numbers, body)):
        return None
    names = f", columns: {listed(cells[0])}" if named else ", without names"
    return f"a table of numbers, {len(body)} x {len(cells[0])}{names}; no training data"


def _all_numbers(cells: Sequence[Any]) -> bool:
    try:
        return all(float(c) == float(c) for c in cells)
    except ValueError:
        return False
