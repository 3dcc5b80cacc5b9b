"""All arms and seeds in one file of JSON lines: to be read as one table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from evenhand.trackers.protocol import TrackedRun, tracker


@tracker("lines")
class LineTracker:
    """Lines `{"arm", "seed", "step", ...}` in the file `path` of the run directory."""

    def __init__(self, run: TrackedRun, path: str = "metrics.jsonl") -> None:
        self.run, self.path = run, run.out / path
        if not run.resumed and self.path.is_file():  # told once more, kept once
            kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if not self._own(json.loads(line))]
            self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def _own(self, row: Mapping[str, Any]) -> bool:
        return (row["arm"], row["seed"]) == (self.run.arm, self.run.seed)

    def log(self, metrics: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"arm": self.run.arm, "seed": self.run.seed, **metrics}) + "\n")

    def close(self) -> None: ...
