"""A view that also leaves what it is told in the run directory, for those who watch from elsewhere."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

from evenhand.runner.progress import View
from evenhand.runner.state import RunState, StageState, StageStatus
from evenhand.store.whole import write_json

FILE = Path("logs") / "progress.json"
_SECONDS = 2.0
"""Between two files while nothing changes but how far stages are."""
_log = logging.getLogger(__name__)


class Recording:
    """Passes on to `view` what it is told, and keeps the board as `logs/progress.json` of the run directory."""

    def __init__(self, view: View, out: Path) -> None:
        self.view, self.file = view, out / FILE
        self.notes: list[dict[str, str]] = []
        self.written, self.failed = -math.inf, False

    def start(self, board: RunState) -> None:
        self.board, self.begun = board, time.time()
        self.view.start(board)
        self.write()

    def changed(self, cell: StageState) -> None:
        self.view.changed(cell)
        self.write()

    def noted(self, cell: StageState, text: str) -> None:
        self.notes.append({"node": cell.node.name, "text": text})
        self.view.noted(cell, text)
        self.write()

    def tick(self) -> None:
        self.view.tick()
        if self.board.clock() - self.written >= _SECONDS:
            self.write()

    def stop(self) -> None:
        self.view.stop()
        self.write()

    def write(self) -> None:
        self.written = self.board.clock()
        seconds, certain = self.board.eta()
        now = {
            "begun": self.begun, "at": time.time(), "left": seconds if certain else None, "notes": self.notes,
            "stages": [self._row(cell) for cell in self.board.cells.values()],
        }  # fmt: skip
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.file, now)
        except OSError as error:  # a full disk, say: stages go on where they can
            if not self.failed:
                _log.warning("%s cannot be written (%s): `evenhand watch` sees nothing new", self.file, error.strerror)
            self.failed = True

    def _row(self, cell: StageState) -> dict[str, Any]:
        now = self.board.clock()
        left = cell.remaining(now) if cell.status is StageStatus.RUNNING else None
        shown = {k: v for k, v in cell.shown.items() if not isinstance(v, float) or math.isfinite(v)}
        return {
            "name": cell.node.name, "row": cell.node.row, "column": cell.node.column, "status": cell.status.value,
            "share": cell.share, "seconds": cell.seconds(now), "left": left, "shown": shown, "error": cell.error,
        }  # fmt: skip
