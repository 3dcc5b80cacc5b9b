"""A tracker fed from a growing metrics.jsonl: each line once, also when a run was stopped and goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evenhand.store.whole import write_json
from evenhand.trackers.protocol import TRACKERS, TrackedRun, Tracker

MEMORY = ".tracked.json"
"""In the run directory: what was told to which kind of tracker, so that a run that goes on is not told again."""


@dataclass(slots=True)
class Told:
    """`lines` of the artifact `key` were told."""

    key: str
    lines: int = 0


class Memory:
    """What the tracker of these settings was told of every arm and seed in this run directory."""

    def __init__(self, out: Path, settings: Mapping[str, Any] | str) -> None:
        self.file, self.settings = out / MEMORY, json.dumps(settings, sort_keys=True)
        kept = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}
        self.told = {name: Told(**told) for name, told in kept.get(self.settings, {}).items()}
        self.others = {name: told for name, told in kept.items() if name != self.settings}

    def of(self, name: str, key: str) -> Told:
        """What is known of a run; nothing where it was another artifact."""
        if name not in self.told or self.told[name].key != key:
            self.anew(name, key)
        return self.told[name]

    def anew(self, name: str, key: str) -> Told:
        """A run that is told from its first line, whatever was told before."""
        self.told[name] = Told(key)
        return self.told[name]

    def write(self) -> None:
        own = {name: {"key": told.key, "lines": told.lines} for name, told in self.told.items()}
        write_json(self.file, {**self.others, self.settings: own})


class Followed:
    """One arm and seed. `drain(path)` tells what `path` has beyond what was told; the tracker is made with the first of it."""

    def __init__(self, settings: Mapping[str, Any] | str, run: TrackedRun, told: Told) -> None:
        self.settings, self.run, self.told = settings, run, told
        self.tracker: Tracker | None = None

    def drain(self, path: Path) -> int:
        """How many lines were told. A line that is still being written has no end yet, and waits."""
        if not path.is_file():
            return 0
        lines = path.read_text(encoding="utf-8").split("\n")[:-1][self.told.lines :]
        if lines and self.tracker is None:
            self.tracker = TRACKERS.build(self.settings, replace(self.run, resumed=self.told.lines > 0), where="tracker")
        for line in lines:
            assert self.tracker is not None
            self.tracker.log(json.loads(line))
            self.told.lines += 1
        return len(lines)

    def close(self) -> None:
        if self.tracker is not None:
            self.tracker.close()
            self.tracker = None
