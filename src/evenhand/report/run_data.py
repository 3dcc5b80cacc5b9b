"""Reads a run directory. Absent files give empty fields; broken files are an error that names the place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import iter_groups
from evenhand.results.files import load, read_json, read_jsonl
from evenhand.results.record import Results

Metrics = dict[str, Any]
"""One line of a file of JSON lines."""
BySeed = dict[str, dict[str, Any]]
"""arm -> seed (as text) -> something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """What the page is made from. `curves`, `samples` and `ledgers` are keyed by arm, then by seed as text."""

    folder: Path
    results: Results
    experiment: Mapping[str, Any] = field(default_factory=dict)
    curves: dict[str, dict[str, list[Metrics]]] = field(default_factory=dict)
    samples: dict[str, dict[str, list[Metrics]]] = field(default_factory=dict)
    ledgers: dict[str, dict[str, Metrics]] = field(default_factory=dict)
    shared: dict[str, dict[str, list[Metrics]]] = field(default_factory=dict)
    """Curves of what arms share: "sft" and the reward models by name, as far as they are there."""
    turns: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """(role, text) of the shown prompts' turns, by prompt id; prompts that are plain text have none."""


def read_run(folder: Path) -> RunData:
    """Everything a report can show of the run in `folder`. Only `results.json` must exist."""
    results = load(folder)
    experiment_path = folder / "experiment.json"
    named = {arm: {seed: folder / path for seed, path in seeds.items()} for arm, seeds in results.curves.items()}
    return RunData(
        folder=folder,
        results=results,
        experiment=read_json(experiment_path) if experiment_path.exists() else {},
        curves=per_seed(named or _seed_files(folder, "metrics.jsonl"), read_jsonl),
        samples=per_seed(_seed_files(folder, "samples.jsonl"), read_jsonl),
        ledgers=per_seed(_seed_files(folder, "ledger.json"), read_json),
        shared=shared_curves(folder, experiment_path),
        turns=_turns(folder, {s.prompt_id for s in results.samples}),
    )


def shared_curves(folder: Path, record: Path) -> dict[str, dict[str, list[Metrics]]]:
    """Metrics of supervised fine-tuning and of every reward model, by name and seed, out of the run's store."""
    if not record.is_file():
        return {}
    told = read_json(record)
    found: dict[str, dict[str, list[Metrics]]] = {}
    for node in told.get("nodes", ()):
        kind, _, rest = str(node["name"]).partition("/")
        path = folder / told.get("store", "store") / node["key"] / "metrics.jsonl"
        if node.get("kind") == "fit" and kind in ("sft", "reward_models") and path.is_file():
            name, _, seed = (rest if kind == "reward_models" else node["name"]).partition("/seed-")
            found.setdefault(name, {})[seed or str(node["seed"])] = read_jsonl(path)
    return found


def _turns(folder: Path, wanted: set[str | None]) -> dict[str, tuple[tuple[str, str], ...]]:
    """The turns of the wanted prompts that are conversations, from any arm's answers to them."""
    path = next(iter(sorted(folder.glob("generations/*/seed-*/generations.jsonl"))), None)
    prompts = (g.prompt for g in iter_groups(path)) if path is not None else ()
    return {
        p.id: tuple((m.role, m.text) for m in p.content)
        for p in prompts
        if p.id in wanted and not isinstance(p.content, str) and len(p.content) > 1
    }


def _seed_files(folder: Path, name: str) -> dict[str, dict[str, Path]]:
    """`arms/ARM/seed-S/NAME` as {ARM: {S: path}}, seeds in numerical order."""
    places = [(path.parts[-3], path.parts[-2].removeprefix("seed-"), path) for path in folder.glob(f"arms/*/seed-*/{name}")]
    found: dict[str, dict[str, Path]] = {}
    for arm, seed, path in sorted(places, key=lambda at: (at[0], int(at[1]) if at[1].isdigit() else 1 << 30, at[1])):
        found.setdefault(arm, {})[seed] = path
    return found


def per_seed(paths: dict[str, dict[str, Path]], read: Callable[[Path], Any]) -> BySeed:
    """What the files hold. A failed cell has none; `failed` in results.json says so."""
    return {arm: {seed: read(path) for seed, path in seeds.items() if path.exists()} for arm, seeds in paths.items()}
