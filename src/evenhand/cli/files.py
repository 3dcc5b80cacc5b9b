"""Files that a command reads and writes."""

from __future__ import annotations

from pathlib import Path

from evenhand.errors import UserError


def refuse_unfinished(folder: Path) -> None:
    """UserError for a run directory that has no results yet."""
    from evenhand.results.finished_run import is_run

    if (folder / "experiment.json").is_file() and not is_run(folder):
        fix = f"finish it: `evenhand run {folder}`"
        raise UserError("this run is not finished: it has no results yet", where=str(folder), fix=fix)


def refuse_same(read: Path, written: Path | None) -> None:
    """UserError where a command would write over what it reads."""
    if written is not None and written.exists() and read.exists() and written.samefile(read):
        raise UserError("this file is what is read", where=str(written), fix="write to another file: data stay as they are")
