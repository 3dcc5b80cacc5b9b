"""Where a recorded run was begun: its relative paths are meant from there, whichever folder a later command is given in.

Every command asks before anything else, also those that then only show what they remember: nothing large is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evenhand.configfile.text_file import json_object

PLACE = "folder"
"""What the record says of where the command was typed, beside the run: of a copy it is another, and changes nothing."""
NAMING = ("data", "path", "base", "source", "labels", "prompts", "against")
"""Sections and keys of an experiment whose texts may be files."""


def begun_in(experiment: str) -> Path | None:
    """The folder from which paths of a recorded run are meant, where that is not this one: the one in which it was begun, by its
    place beside the run directory. None for anything else, and where nothing that the run names is there (any more)."""
    path = Path(experiment)
    path = path / "experiment.json" if path.is_dir() else path
    if path.name != "experiment.json" or not path.is_file():
        return None
    record = json_object(path)
    if not isinstance(folder := record.get(PLACE), str):
        return None
    begun = (path.resolve().parent / folder).resolve()
    named = [name for name in _paths_in(record.get("effective", {})) if not Path(name).is_absolute() and (begun / name).exists()]
    same = begun == Path.cwd() or all((Path.cwd() / name).resolve() == (begun / name).resolve() for name in named)
    return None if same else begun


def _paths_in(value: Any, key: str = "") -> Iterator[str]:
    """What a recorded experiment names that may be a file or folder."""
    if isinstance(value, Mapping):
        for inner, part in value.items():
            yield from _paths_in(part, "data" if key == "data" and inner not in ("world", "kind") else str(inner))
    elif isinstance(value, list):
        for part in value:
            yield from _paths_in(part, key)
    elif isinstance(value, str) and key in NAMING and "\0" not in value:
        yield value
