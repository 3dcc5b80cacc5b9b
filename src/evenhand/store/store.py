"""A content-addressed store: `ROOT/KEY/` is a finished artifact, complete or absent.

An artifact is written in `ROOT/KEY.partial/`, which survives a kill so that a stage resumes there, and appears by one atomic
rename. A lock file guards each key: two processes never write one artifact, and the kernel frees the lock of a dead one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evenhand.errors import UserError

META = "meta.json"
_KEY = re.compile(r"[0-9a-f]{8,64}")
_RESERVE = 64 * 2**20


class Store:
    """Artifacts by key. `reserve` bytes must stay free on the disk before a new artifact is begun."""

    def __init__(self, root: Path | str, *, reserve: int = _RESERVE) -> None:
        self.root = Path(root).absolute()
        self.reserve = reserve

    def path(self, key: str) -> Path:
        """Where the artifact lies (or will)."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"'{key}' is not a key: 8 to 64 lower-case hex digits")
        return self.root / key

    def partial(self, key: str) -> Path:
        """Where it is being written."""
        return self.path(key).with_name(f"{key}.partial")

    def has(self, key: str) -> bool:
        """True when the artifact is finished."""
        return self.path(key).is_dir()

    def meta(self, key: str) -> dict[str, Any]:
        """What the finished artifact was made from."""
        return json.loads((self.path(key) / META).read_text(encoding="utf-8"))

    @contextmanager
    def open(self, key: str, meta: Mapping[str, Any], waiting: Callable[[], None] = lambda: None) -> Iterator[Path | None]:
        """The folder to write artifact `key` in; waits while another process writes it, and is None if that one finished it.

        Leaving normally finishes the artifact: everything is flushed to disk, `meta.json` is written, the folder renamed.
        Leaving by an exception keeps what was written, for resume (a checkpoint may be hours of work; it is valid whatever
        stopped the stage). A folder with nothing but its meta in it is removed. `waiting()` is called before a wait.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.path(key).with_name(f"{key}.lock"), waiting):
            if self.has(key):
                yield None
                return
            self.check_space()
            folder = self.partial(key)
            folder.mkdir(exist_ok=True)
            meta = _begun(folder, meta)
            try:
                yield folder
            except BaseException:
                _remove_if_empty(folder)
                raise
            _write_json(folder / META, meta)  # again: a stage may have emptied its folder
            self._finish(key)

    def _finish(self, key: str) -> None:
        _remove_halves(self.partial(key))
        flush_tree(self.partial(key))
        self.partial(key).rename(self.path(key))
        flush(self.root)
        _read_only(self.path(key))

    def discard(self, key: str) -> None:
        """Removes an artifact and its partial folder. A reader sees it whole or not at all."""
        with locked(self.root / f"{key}.lock"):
            for folder in (self.path(key), self.partial(key)):
                if folder.is_dir():
                    grave = folder.with_name(f"{folder.name}.trash")
                    shutil.rmtree(grave, ignore_errors=True)  # left over from an earlier kill
                    folder.rename(grave)
                    shutil.rmtree(grave)

    def gc(self, keep: Collection[str]) -> list[str]:
        """Removes every artifact and partial folder but those of `keep` and those being written; returns their keys."""
        removed = []
        for key in sorted({p.name.split(".")[0] for p in self.root.iterdir() if p.is_dir()}):
            if _KEY.fullmatch(key) and key not in keep and not self.busy(key):
                self.discard(key)
                shutil.rmtree(self.root / f"{key}.trash", ignore_errors=True)
                shutil.rmtree(self.root / f"{key}.partial.trash", ignore_errors=True)
                removed.append(key)
        return removed

    def busy(self, key: str) -> bool:
        """True while some process holds the key's lock."""
        lock = self.root / f"{key}.lock"
        if not lock.exists():
            return False
        descriptor = os.open(lock, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def check_space(self, needed: int = 0) -> None:
        """Refuses to begin what the disk cannot hold; a full disk halfway costs more than a message now."""
        free = shutil.disk_usage(self.root).free
        if free < needed + self.reserve:
            raise UserError(
                f"{free / 2**20:.0f} MB are free, {(needed + self.reserve) / 2**20:.0f} MB are needed",
                where=str(self.root),
                why="the disk would be full before the artifact is finished",
                fix="free some space, or set EVENHAND_STORE (or `store:`) to a folder on another disk",
            )


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds an exclusive lock on `path`, waiting for it (after a call of `waiting`); the file is removed afterwards.

    Because the file is removed, a waiter may wake up holding the lock of a deleted file; it then tries again.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, waiting)
            if _same_file(descriptor, path):
                try:
                    yield
                finally:
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


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def flush(path: Path) -> None:
    """Flushes a file, or a folder's list of entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        flush(path)
    flush(folder)


def _read_only(folder: Path) -> None:
    """Finished files are shared by hard links; nobody may change one by accident."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)


def _begun(folder: Path, meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Notes what the folder is being made from. One begun under other versions says so: its bytes may be of neither."""
    note = folder / META
    if note.is_file():
        before = json.loads(note.read_text(encoding="utf-8"))
        if before.get("versions") != meta.get("versions"):
            meta = {**meta, "begun_with": before.get("begun_with", before.get("versions"))}
    _write_json(note, meta)
    return meta


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def _remove_halves(folder: Path) -> None:
    """What a kill left of files and folders that were to appear whole: by habit of this package their names say so."""
    for pattern in (".*", "*.partial", "*.new"):
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _remove_if_empty(folder: Path) -> None:
    if all(p.name == META for p in folder.iterdir()):
        shutil.rmtree(folder)
