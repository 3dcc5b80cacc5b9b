"""The runs that are compared, opened: results, experiment, the keys of their stages, and a short name for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import read_groups
from evenhand.errors import UserError
from evenhand.results.files import NAME, load, read_json
from evenhand.results.record import Results
from evenhand.types import Group


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A finished run. `label` is the end of its folder's path, as much of it as tells it from the others."""

    label: str
    folder: Path
    results: Results
    experiment: Mapping[str, Any]

    @property
    def effective(self) -> Mapping[str, Any]:
        """The experiment as it was in effect; empty where the run did not record it."""
        return self.experiment.get("effective") or {}

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """The key of every stage by its name: equal keys are equal results."""
        return {str(node["name"]): str(node["key"]) for node in self.experiment.get("nodes", ())}

    @property
    def store(self) -> Path:
        """Where its artifacts lie."""
        return self.folder / str(self.experiment.get("store", "store"))

    def answers(self, arm: str, seed: int) -> list[Group]:
        """The answers of an arm to the held-out prompts; nothing where the run directory does not show them."""
        path = self.folder / "generations" / arm / f"seed-{seed}" / "generations.jsonl"
        return read_groups(path) if path.is_file() else []


def open_runs(folders: Sequence[str | Path]) -> tuple[OpenedRun, ...]:
    """The runs in their order, each once.

    Raises: UserError where there are fewer than two, where one is named twice, and where one has no results.
    """
    paths = [Path(folder) for folder in folders]
    if len(paths) < 2:
        fix = "name two run directories or more: `evenhand compare runs/A runs/B`"
        raise UserError("one run alone has nothing to be compared with", where=str(paths[0]) if paths else "compare", fix=fix)
    for place, path in enumerate(paths):
        if path.resolve() in [earlier.resolve() for earlier in paths[:place]]:
            raise UserError("this run is named twice", where=str(path), fix="name each run directory once")
        if not (path / NAME).is_file() and (path / "experiment.json").is_file():
            fix = f"finish it: `evenhand run {path} --out {path}`"
            raise UserError("this run is not done, so it has no results", where=str(path), fix=fix)
    names = labels(paths)
    return tuple(_open(path, name) for path, name in zip(paths, names, strict=True))


def _open(folder: Path, label: str) -> OpenedRun:
    record = folder / "experiment.json"
    return OpenedRun(label=label, folder=folder, results=load(folder), experiment=read_json(record) if record.is_file() else {})


def labels(paths: Sequence[Path]) -> tuple[str, ...]:
    """The last parts of the paths, as few as tell all of them apart.

    >>> labels([Path("runs/low"), Path("runs/high")]), labels([Path("a/run"), Path("b/run")])
    (('low', 'high'), ('a/run', 'b/run'))
    """
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts))):
        names = tuple("/".join(own[-count:]) for own in parts)
        if len(set(names)) == len(names):
            return names
    return tuple(map(str, paths))
