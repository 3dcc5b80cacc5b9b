"""Files that a command reads and writes."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from evenhand.configfile.begun import begun_in
from evenhand.errors import UserError

_log = logging.getLogger(__name__)


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


def parsed(text: str, where: str) -> Any:
    """What YAML on the command line says."""
    from evenhand.configfile.document import parse

    return parse(text, where).data


def where_begun(experiment: str, out: Path | None) -> tuple[str, Path | None]:
    """The experiment and `out` for a command about a run that was begun in another folder: its paths are meant from there, which
    becomes the working directory, with those of settings on this command line."""
    if (begun := begun_in(experiment)) is None:
        return experiment, out
    experiment, out = str(Path(experiment).resolve()), None if out is None else out.resolve()
    os.chdir(begun)
    _log.warning("paths are meant from %s, where this run was begun", begun)
    return experiment, out
