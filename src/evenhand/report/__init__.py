"""From a run directory to something a person reads: one HTML page, two tables for papers, one table for the terminal.

`write(run_dir)` makes `report.html`, `results.csv` and `results.tex` in the run directory.
`renew(run_dir)` does so unless they are there and nothing has changed.
`table(results)` is the verdict table for a terminal.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evenhand.report.terminal import VerdictTable
    from evenhand.results.record import Results

__all__ = ["renew", "table", "write"]


def write(run_dir: Path | str) -> Path:
    """Write `report.html`, `results.csv` and `results.tex` into `run_dir` (with evaluations beside the comparison also
    `evaluations.csv` and `evaluations.tex`); return the path of the page.

    The page is one self-contained file: it opens from disk, asks the network for nothing, and shows what models wrote as text.
    What is absent from the run directory is left out of the page; nothing is made up.

    Raises `UserError` when `results.json` is missing or a file in the directory cannot be read.
    """
    from evenhand.report.page import write_page  # jinja2 and matplotlib load only when a page is wanted

    return write_page(Path(run_dir))


def renew(run_dir: Path) -> Path:
    """The page of a run that has just ended: as it is where it is current, else written."""
    from evenhand.results import unchanged

    if unchanged.is_current(run_dir, unchanged.WITH_PAGE):
        return run_dir / unchanged.PAGE
    page = write(run_dir)
    unchanged.note_page(run_dir)
    return page


def table(results: Results) -> VerdictTable:
    """The verdict table of `results` (of results.json) for a terminal."""
    from evenhand.report.terminal import VerdictTable

    return VerdictTable(results)
