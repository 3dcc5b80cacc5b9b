"""Reads a run directory. Absent files give empty fields; broken files are an error that names the place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.errors import UserError

Row = dict[str, Any]
BySeed = dict[str, dict[str, Any]]
"""arm -> seed (as text) -> something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """What the page is made from. `curves`, `samples` and `ledgers` are keyed by arm, then by seed as text."""

    folder: Path
    results: Mapping[str, Any]
    experiment: Mapping[str, Any] = field(default_factory=dict)
    curves: dict[str, dict[str, list[Row]]] = field(default_factory=dict)
    samples: dict[str, dict[str, list[Row]]] = field(default_factory=dict)
    ledgers: dict[str, dict[str, Row]] = field(default_factory=dict)


def read_run(folder: Path) -> RunData:
    """Everything a report can show of the run in `folder`. Only `results.json` must exist."""
    results_path = folder / "results.json"
    if not results_path.exists():
        raise UserError(
            "no results.json here",
            where=str(folder),
            why="a report shows the results of a finished run",
            fix="name a run directory, or finish the run with `evenhand run EXPERIMENT --out " + str(folder) + "`",
        )
    results = read_json(results_path)
    if not isinstance(results.get("arms"), dict):
        raise UserError(
            "results.json has no table 'arms'", where=str(results_path), fix="run `evenhand run` again on this folder"
        )
    experiment_path = folder / "experiment.json"
    return RunData(
        folder=folder,
        results=results,
        experiment=read_json(experiment_path) if experiment_path.exists() else {},
        curves=_per_seed(_curve_paths(folder, results), read_jsonl),
        samples=_per_seed(_seed_files(folder, "samples.jsonl"), read_jsonl),
        ledgers=_per_seed(_seed_files(folder, "ledger.json"), read_json),
    )


def read_json(path: Path) -> Any:
    """The content of a JSON file; NaN and infinities, which JSON lacks, read as None (absent)."""
    return _parse(path.read_text(encoding="utf-8"), where=str(path))


def read_jsonl(path: Path) -> list[Row]:
    """The objects of a JSON-lines file. Split on newlines only: texts may hold U+2028."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_parse(line, where=f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def _parse(text: str, *, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        raise UserError(
            f"this is not JSON ({error.msg})",
            where=where,
            fix="delete the folder of this arm and run again; finished cells are reused",
        ) from error


def _curve_paths(folder: Path, results: Mapping[str, Any]) -> dict[str, dict[str, Path]]:
    """Metric files: those that results.json names, else those found on disk."""
    named = results.get("curves") or {}
    listed = {arm: {str(seed): folder / path for seed, path in seeds.items()} for arm, seeds in named.items()}
    return listed or _seed_files(folder, "metrics.jsonl")


def _seed_files(folder: Path, name: str) -> dict[str, dict[str, Path]]:
    """`arms/ARM/seed-S/NAME` as {ARM: {S: path}}, seeds in numerical order."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob(f"arms/*/seed-*/{name}"), key=lambda p: (p.parts[-3], _numeric(_seed_of(p)))):
        found.setdefault(path.parts[-3], {})[_seed_of(path)] = path
    return found


def _seed_of(path: Path) -> str:
    return path.parts[-2].removeprefix("seed-")


def _numeric(seed: str) -> tuple[int, str]:
    return (int(seed), "") if seed.isdigit() else (1 << 30, seed)


def _per_seed(paths: dict[str, dict[str, Path]], read: Any) -> BySeed:
    return {arm: dict(_existing(seeds, read)) for arm, seeds in paths.items()}


def _existing(seeds: dict[str, Path], read: Any) -> Iterator[tuple[str, Any]]:
    for seed, path in seeds.items():
        if path.exists():  # a failed cell has no files; `failed` in results.json says so
            yield seed, read(path)
