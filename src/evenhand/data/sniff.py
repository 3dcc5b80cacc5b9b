"""What a file without a telling ending may be: for a first look, and said; a run is told (`file_type`, `encoding`)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenhand.data.decode import byte_lines
from evenhand.data.readers import type_of
from evenhand.errors import UserError

LOOKED_AT = 1000
"""Lines."""


def guessed(path: Path) -> tuple[dict[str, Any], str]:
    """(source, note): how to read the file, and what was guessed about it; the note is "" where nothing had to be."""
    source: dict[str, Any] = {"path": str(path)}
    if not path.is_file():
        return source, ""
    notes = []
    try:
        kind = type_of(path)
    except UserError:
        kind = ""
    lines = [line for _, line in itertools.islice(byte_lines(path), LOOKED_AT)] if kind in ("", "text") else []
    if not _is_utf8(lines):
        source["encoding"] = "latin-1"
        notes.append("it is not UTF-8")
    if not kind:
        source |= _by_looks(lines)
        notes.insert(0, f"the ending '{path.suffix}' does not say what it is")
    return source, f"{', and '.join(notes)}: read as {shown(source)}" if notes else ""


def _by_looks(lines: list[bytes]) -> Mapping[str, Any]:
    full = [line for line in lines if line.strip()]
    if full and all(line.lstrip().startswith(b"{") for line in full):
        return {"file_type": "jsonl"}
    blank = len(full) < len(lines)
    return {"file_type": "text", "format": "documents", **({} if blank else {"separator": "\n"})}


def _is_utf8(lines: list[bytes]) -> bool:
    try:
        b"".join(lines).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def shown(source: Mapping[str, Any]) -> str:
    """A source as one would write it in an experiment.

    >>> shown({"path": "a.pos", "separator": chr(10)})
    '{path: a.pos, separator: "\\\\n"}'
    """
    import json

    plain = {k: json.dumps(v) if isinstance(v, str) and not v.isprintable() else v for k, v in source.items()}
    return "{" + ", ".join(f"{k}: {v}" for k, v in plain.items()) + "}"
