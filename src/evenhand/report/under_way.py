"""A run that is not done: how far each stage is, and what its arms have recorded so far. No verdict before the end.

A comparison that is looked at while it grows errs more often than it says (Armitage, McPherson and Rowe 1969): curves, samples
and costs are shown, and who wins is not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.report.formatting import duration
from evenhand.report.run_data import RunData, per_seed
from evenhand.results.files import read_growing_jsonl, read_json
from evenhand.results.record import ArmResult, FailedStage, Results
from evenhand.runner.recording import FILE
from evenhand.runner.state import URGENT
from evenhand.store.locks import held


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage as it stands. `share` of it is done; `figures` are its latest numbers, in words."""

    name: str
    row: str
    column: str
    status: str
    share: float
    figures: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """How far a run is. `alive` while a process works on it."""

    stages: tuple[StageRow, ...]
    notes: tuple[tuple[str, str], ...]
    alive: bool
    foot: str

    @property
    def title(self) -> str:
        if self.alive:
            return "Under way"
        return "Waits for labels" if any(s.status == "waiting" for s in self.stages) else "Not finished"

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(s.column for s in self.stages))

    @property
    def matrix(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """By row: for every column the word to show and the status it stands for."""
        places: dict[str, dict[str, list[StageRow]]] = {}
        for stage in self.stages:
            places.setdefault(stage.row, {}).setdefault(stage.column, []).append(stage)
        return [(row, [_cell(own.get(column, [])) for column in self.columns]) for row, own in places.items()]

    @property
    def troubled(self) -> list[StageRow]:
        return [s for s in self.stages if s.error]


def _cell(stages: list[StageRow]) -> tuple[str, str]:
    if not stages:
        return "", ""
    status = min((s.status for s in stages), key=URGENT.index)
    good = sum(s.status in ("done", "cached") for s in stages)
    if status == "running":
        share = (good + sum(s.share for s in stages if s.status == "running")) / len(stages)
        return f"{share:.0%}", status
    return (f"{good} of {len(stages)}" if status == "queued" and good else status), status


def read_under_way(folder: Path) -> tuple[RunData, UnderWay]:
    """What a run in `folder` has so far, finished or not. Raises: UserError where it is no run directory."""
    file = folder / "experiment.json"
    if not file.is_file():
        raise UserError("is no run directory", where=str(folder), fix="give the folder that `evenhand run` writes to")
    record = read_json(file)
    store = Path(os.path.normpath(folder / record["store"]))
    way = _way(folder, record, store)
    effective, arms = record["effective"], record["effective"].get("arms", {})
    failed = tuple(FailedStage(node=s.name, error=s.error) for s in way.troubled if s.status in ("failed", "blocked"))
    results = Results(
        name=effective.get("name"), description=str(effective.get("description", "")), failed=failed or None,
        baseline=effective.get("baseline") or next(iter(arms), None), seeds=tuple(effective.get("seeds", ())),
        arms={name: ArmResult(method=str(settings.get("method", name))) for name, settings in arms.items()},
    )  # fmt: skip
    places = {n["name"]: _artifact(store, n["key"]) for n in record["nodes"]}
    return RunData(
        folder=folder, results=results, experiment=record,
        curves=per_seed(_by_arm(places, "metrics.jsonl"), read_growing_jsonl),
        samples=per_seed(_by_arm(places, "samples.jsonl"), read_growing_jsonl),
        ledgers=per_seed(_by_arm(places, "ledger.json"), read_json),
    ), way  # fmt: skip


def _artifact(store: Path, key: str) -> Path:
    """A finished artifact's folder, else that of one that was begun."""
    from evenhand.store.store import Store

    kept = Store(store)
    return kept.path(key) if kept.has(key) else kept.partial(key)


def _by_arm(places: Mapping[str, Path], file: str) -> dict[str, dict[str, Path]]:
    """arm -> seed -> the file, of the arms that have it."""
    found: dict[str, dict[str, Path]] = {}
    for name, place in places.items():
        kind, _, rest = name.partition("/")
        arm, _, seed = rest.rpartition("/seed-")
        if kind == "arms" and arm and (place / file).is_file():
            found.setdefault(arm, {})[seed] = place / file
    return found


def _way(folder: Path, record: Mapping[str, Any], store: Path) -> UnderWay:
    alive = held(folder / ".lock")
    file = folder / FILE
    told = read_json(file) if file.is_file() else {"stages": [_from_store(n, store) for n in record["nodes"]], "notes": []}
    stages = tuple(_stage(row, alive) for row in told["stages"])
    notes = tuple((str(n["node"]), str(n["text"])) for n in told["notes"])
    return UnderWay(stages=stages, notes=notes, alive=alive, foot=_foot(told, stages, alive))


def _stage(row: Mapping[str, Any], alive: bool) -> StageRow:
    status = row["status"] if alive or row["status"] != "running" else "stopped"
    named = dict(row.get("shown", {}))
    phase = [named.pop("phase")] if "phase" in named else []
    shown = phase + [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in named.items()]
    left = [f"{duration(row['left'])} left"] if row.get("left") is not None else []
    share = float(row.get("share", 0.0))
    figures = ", ".join([*([f"{share:.0%}"] if share else []), *left, *shown])
    return StageRow(
        row["name"], row.get("row") or row["name"], row.get("column") or "", status, share, figures, row.get("error", "")
    )


def _from_store(node: Mapping[str, Any], store: Path) -> dict[str, Any]:
    """A stage of a run that left no board: what its artifact says."""
    kind, _, seed = str(node["name"]).rpartition("/seed-")
    begun = "stopped" if _artifact(store, node["key"]).is_dir() else "queued"
    done = (store / node["key"]).is_dir()
    place = {"row": kind, "column": f"seed {seed}"} if kind else {"row": node["name"], "column": "shared"}
    return {"name": node["name"], "status": "done" if done else begun, **place}


def _foot(told: Mapping[str, Any], stages: tuple[StageRow, ...], alive: bool) -> str:
    parts = [f"{sum(s.status in ('done', 'cached') for s in stages)} of {len(stages)} stages"]
    if "at" in told:
        took = duration(told["at"] - told["begun"])
        parts.append(f"{took} so far" if alive else f"ended after {took}")
    if alive and told.get("left") is not None:
        parts.append(f"about {duration(told['left'])} left")
    return " · ".join(parts)
