"""The report of a run as a page that grows, served on this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from evenhand.report.page import environment, html, html_under_way, live_assets
from evenhand.report.run_data import read_run
from evenhand.report.summary import summarise
from evenhand.report.under_way import read_under_way
from evenhand.results.files import NAME
from evenhand.store.locks import held

SPACING = 10.0
"""Seconds between two drawings of the figures, which cost one or two each."""


@dataclass
class Growing:
    """A run's page, drawn again when there is something new, and not more often than every `SPACING` seconds."""

    folder: Path
    clock: Callable[[], float] = time.monotonic
    _page: str = ""
    _mark: str = ""
    _drawn: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def done(self) -> bool:
        """Whether there are results, and nobody works on others."""
        return (self.folder / NAME).is_file() and not held(self.folder / ".lock")

    def mark(self) -> str:
        """Changes when there is something new to draw."""
        if self.done:
            return f"done {(self.folder / NAME).stat().st_mtime_ns}"
        run, way = read_under_way(self.folder)
        lines = sum(len(rows) for table in (run.curves, run.samples) for seeds in table.values() for rows in seeds.values())
        return f"{lines} {sum(s.status == 'done' for s in way.stages)}"

    def page(self) -> str:
        with self._lock:
            mark = self.mark()
            if not self._page or (mark != self._mark and self.clock() - self._drawn >= SPACING):
                self._page, self._mark, self._drawn = self._draw(), mark, self.clock()
            return self._page

    def state(self) -> dict[str, Any]:
        """How far the run is: cheap, asked every few seconds."""
        if self.done:
            return {"done": True, "figures": self.mark()}
        _, way = read_under_way(self.folder)
        shown = environment().get_template("under_way.html.j2").render(under_way=way)
        return {"done": False, "figures": self.mark(), "under_way": shown, "title": way.title, "foot": way.foot}

    def _draw(self) -> str:
        if not self.done:
            return html_under_way(*read_under_way(self.folder), live_assets())
        run = read_run(self.folder)
        return html(run, summarise(run.results), live_assets())


def build(folder: Path) -> FastAPI:
    """The application; it only reads. It stands behind `evenhand.serve.guard.Guard`."""
    app, growing = FastAPI(docs_url=None, redoc_url=None, openapi_url=None), Growing(folder)

    @app.get("/", response_class=HTMLResponse)
    def show() -> str:
        return growing.page()

    @app.get("/state")
    def state() -> dict[str, Any]:
        return growing.state()

    return app
