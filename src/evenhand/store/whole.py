"""Files that appear whole or not at all: written beside their place, then brought there by one rename."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """The place to write a file at; when the block ends it becomes `path`, and where the block fails nothing is left.

    A kill leaves `path` as it was, and beside it a half named NAME.PROCESS.partial, so that two processes never share one.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # a disk that could not take the file: that error says it
            partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a UTF-8 text, whole or not at all; its folder must be there."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes plain data as JSON with sorted keys, so that equal values give equal bytes; whole or not at all."""
    write_whole(path, json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


def link(source: Path | str, target: Path | str) -> None:
    """The same file under another name; a copy on another disk, or where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def unwritable(path: Path) -> str:
    """Why nothing can be written at a place that is there or is still to be made, in words; empty where a page can.

    What permissions say is not all: a file system may be read-only, or full.
    """
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=existing(path)) as page:
            page.write(bytes(4096))
            page.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def existing(path: Path) -> Path:
    """The place, or the nearest folder above it that is there."""
    path = Path(path).absolute()
    return next(p for p in (path, *path.parents) if p.exists())
