"""How many rows a source's local files have, before any is left out: lines are counted, not read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from evenhand.data.decode import byte_lines
from evenhand.data.files import local_files
from evenhand.data.parquet import said_rows
from evenhand.data.readers import read_rows, type_of
from evenhand.data.recipes import with_recipe
from evenhand.errors import UserError
from evenhand.store.fingerprint import file_state


def row_count(source: Mapping[str, Any] | str) -> int | None:
    """How many rows the local files of a source have, before any is left out; None for a mixture, and for what is not here.

    >>> row_count("org/not-here") is None
    True
    """
    named: Mapping[str, Any] = {"path": source} if isinstance(source, str) else with_recipe(source)
    paths = local_files({"path": named.get("path", ())})
    if not paths or any(path.is_dir() for path in paths):
        return None
    file_type, field = (str(named.get(key, "")) for key in ("file_type", "field"))
    try:
        rows = sum(_rows(path, file_type, field, str(file_state(path))) for path in paths)
    except UserError:  # what is wrong with a file is said where it is read
        return None
    return min(rows, int(named.get("limit") or rows))


@lru_cache(maxsize=64)
def _rows(path: Path, file_type: str, field: str, state: str) -> int:
    kind = file_type or type_of(path)
    if kind == "jsonl":
        return sum(1 for _ in byte_lines(path))
    if kind == "parquet":
        return said_rows(path)
    return sum(1 for _ in read_rows(path, file_type=kind, field=field))
