"""Which runs use a store: each leaves a note there, so that whoever tidies up knows what is still wanted, and by whom."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evenhand.store.fingerprint import digest
from evenhand.store.store import Store
from evenhand.store.whole import write_json

_PREFIX = "run-"


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run directory and the keys of its stages by name; `note` is the file that says so."""

    folder: Path
    nodes: Mapping[str, str]
    note: Path

    @property
    def gone(self) -> bool:
        """Whether the run directory is no longer there (removed, moved, or on a disk that is not mounted)."""
        return not self.folder.is_dir()

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(self.nodes.values())


def remember(store: Store, out: Path, nodes: Mapping[str, str]) -> None:
    """Notes that the run directory `out` uses these keys, by stage; in place of what it used before.

    The way to the run is kept relative to the store, so that a run directory that holds its store may be moved.
    """
    way = Path(os.path.relpath(Path(out).absolute(), store.root)).as_posix()
    note = store.root / f"{_PREFIX}{digest(way)[:16]}.json"
    write_json(note, {"run": way, "nodes": dict(nodes)})


def known_runs(store: Store) -> list[KnownRun]:
    """Every run that left a note that can be read."""
    found = []
    for note in sorted(store.root.glob(f"{_PREFIX}*.json")):
        try:
            told = json.loads(note.read_text(encoding="utf-8"))
            nodes = {str(name): str(key) for name, key in told["nodes"].items()}
            found.append(KnownRun((store.root / str(told["run"])).resolve(), nodes, note))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a damaged note is no run; the next `evenhand run` there writes it again
    return found
