"""Lines added to a file that is never rewritten."""

from __future__ import annotations

import os
from pathlib import Path


def append(path: Path, line: bytes, *, sync: bool = False) -> None:
    """Adds a line by one system call, so that processes may share the file and a kill can spoil at most the last line; one that a
    kill has cut short is closed first. With `sync` it is on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (b"\n" if torn else b"") + line + b"\n")
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
