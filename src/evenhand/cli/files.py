"""Files that a command reads and writes."""

from __future__ import annotations

from pathlib import Path

from evenhand.errors import UserError


def refuse_same(read: Path, written: Path | None) -> None:
    """UserError where a command would write over what it reads."""
    if written is not None and written.exists() and read.exists() and written.samefile(read):
        raise UserError("this file is what is read", where=str(written), fix="write to another file: data stay as they are")
