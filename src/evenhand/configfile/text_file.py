"""A text file that a user names: read if it is one, and no further than such a file may be long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evenhand.errors import UserError

LONGEST = 1 << 20
"""Bytes of an experiment file or a template."""


def read_text(path: Path) -> str:
    """The text of a regular file. UserError for what is not there, is a folder, a pipe or a device, too long, or not UTF-8."""
    try:
        if path.exists() and not path.is_file():
            raise UserError("is not a file", where=str(path), fix="name a file")
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"cannot be read: {why}", where=f"{path!s:.300}", fix="check the path") from None
    if len(data) > LONGEST:
        raise UserError(f"is longer than {LONGEST >> 20} MiB", where=str(path), fix="give a file of settings, not of data")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", where=str(path), fix="save the file as UTF-8") from None


def json_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds as it stands; empty where it is not there, is damaged, or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
