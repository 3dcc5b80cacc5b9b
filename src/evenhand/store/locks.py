"""Locks by files: the kernel frees those of a dead process, so a lock file that nobody holds locks nothing."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Holds an exclusive lock on `path`, waiting for it (after a call of `waiting`); the file is removed afterwards.

    What is given is the descriptor that the kernel's lock hangs on: a process that was handed a duplicate of it holds the lock
    as well, as long as it lives. Because the file is removed, a waiter may wake up holding the lock of a deleted file; it then
    tries again.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, waiting)
            if _same_file(descriptor, path):
                _sign(descriptor)
                try:
                    yield descriptor
                finally:
                    if _same_file(descriptor, path):  # who took it away by hand may have let in another
                        path.unlink()
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, waiting: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _sign(descriptor: int) -> None:
    """Who holds it, for people; a full disk takes nothing but that from a lock."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


@contextmanager
def _tried(path: Path) -> Iterator[int | None]:
    """The lock `path` without waiting, as its descriptor; None while somebody holds it. Raises: FileNotFoundError."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def held(path: Path) -> bool:
    """True while some process holds the lock `path`."""
    try:
        with _tried(path) as descriptor:
            return descriptor is None
    except FileNotFoundError:
        return False


def holder(path: Path) -> str:
    """Who holds a lock, or held it when it died: "process N on HOST"; empty where it did not say."""
    try:
        number, host = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return ""
    return f"process {number} on {host}"


def remove_stale(path: Path) -> bool:
    """Removes a lock file that nobody holds; False where somebody does."""
    try:
        with _tried(path) as descriptor:
            stale = descriptor is not None and _same_file(descriptor, path)
            if stale:
                path.unlink()
            return stale
    except FileNotFoundError:
        return True
