"""A content-addressed store: `ROOT/KEY/` is a finished artifact, complete or absent.

An artifact is written in `ROOT/KEY.partial/`, which survives a kill so that a stage resumes there, and appears by one atomic
rename. A lock file guards each key: two processes never write one artifact, and the kernel frees the lock of a dead one.
A finished artifact carries the digests of its files; `damage`, `require` and `read_json` compare them: used is what was made.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.store import digests, pointer, spent
from evenhand.store.locks import held, locked
from evenhand.store.whole import write_json

META = "meta.json"
_log = logging.getLogger(__name__)
SEALED = "digests"
"""In the note of an artifact that was given digests: without them it is damaged."""
_KEY = re.compile(r"[0-9a-f]{8,64}")
_RESERVE = 64 * 2**20
GLANCE = 64 * 2**20
"""Bytes up to which a file is read to see whether it is whole where no stage uses it; of larger ones the size is compared."""


class Damaged(UserError):
    """A finished artifact is not what was made; `key` says which."""

    def __init__(self, key: str, what: str, *, where: str) -> None:
        super().__init__(what, where=where, fix="give the same command again: it is made again")
        self.key = key


class Store:
    """Artifacts by key. `reserve` bytes must stay free on the disk before a new artifact is begun."""

    def __init__(self, root: Path | str, *, reserve: int = _RESERVE) -> None:
        self.root = Path(root).absolute()
        self.reserve = reserve
        self._sound: set[str] = set()
        """Keys whose bytes this process has compared: once is enough."""
        self.locks: dict[str, int] = {}
        """Descriptors of the locks of what this process is writing, by key; see `locks.locked`."""

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

    def has_all(self, keys: Iterable[str]) -> bool:
        """True when all of the artifacts are finished."""
        return all(self.has(key) for key in keys)

    def meta(self, key: str) -> dict[str, Any]:
        """What the finished artifact was made from."""
        found = json.loads((self.path(key) / META).read_text(encoding="utf-8"))
        return {name: value for name, value in found.items() if name != SEALED}

    def name(self, key: str) -> str:
        """The name of the stage that made an artifact, or is making it; empty where nobody knows any more."""
        for folder in (self.path(key), self.partial(key)):
            if (found := read_note(folder)) is not None:
                return str(found.get("name", ""))
        return ""

    def damage(self, key: str, *, up_to: int | None = None) -> str:
        """What is wrong with a finished artifact, in words; empty where nothing is.

        Its files are read once per process. One made before artifacts had digests cannot be compared, and counts as sound; of
        files of more than `up_to` bytes the size alone is compared.
        """
        if key in self._sound or self.unsealed(key):
            return ""
        found = digests.damage(self.path(key), up_to=up_to) or pointer.damage(self.path(key), up_to=up_to)
        if not found and up_to is None:
            self._sound.add(key)
        return found

    def unsealed(self, key: str) -> bool:
        """Whether an artifact was made before artifacts had digests."""
        folder = self.path(key)
        return not digests.sealed(folder) and SEALED not in (read_note(folder) or {SEALED: True})

    def require(self, key: str) -> Path:
        """The folder of a finished artifact, its bytes compared, and those of the model that an adapter in it was trained from.

        Raises: Damaged where one of them is gone, or not what was made.
        """
        why = self.damage(key) if self.has(key) else "it is gone"
        if why:
            raise Damaged(key, self.damaged_words(key, why), where=str(self.root))
        if (start := pointer.start_key(self.path(key))) is not None:
            self.require(start)
        return self.path(key)

    def damaged_words(self, key: str, why: str) -> str:
        """The message on a damaged artifact."""
        return f"artifact {key[:12]} ({self.name(key) or 'of an unknown stage'}) is damaged: {why}"

    def read_json(self, key: str, file: str) -> Any:
        """A JSON file of a finished artifact, which is what was made; the other files are not looked at.

        Raises: Damaged.
        """
        folder = self.path(key)
        known = key in self._sound or self.unsealed(key)
        if not known and (why := digests.damage(folder, below=file)):
            raise Damaged(key, self.damaged_words(key, why), where=str(self.root))
        return json.loads((folder / file).read_text(encoding="utf-8"))

    @contextmanager
    def open(self, key: str, meta: Mapping[str, Any], waiting: Callable[[], None] = lambda: None) -> Iterator[Path | None]:
        """The folder to write artifact `key` in; waits while another process writes it, and is None if that one finished it.

        Leaving normally finishes the artifact: everything is flushed to disk, `meta.json` is written, the folder renamed.
        Leaving by an exception keeps what was written, for resume (a checkpoint may be hours of work; it is valid whatever
        stopped the stage). A folder with nothing but its meta in it is removed. `waiting()` is called before a wait.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.path(key).with_name(f"{key}.lock"), waiting) as self.locks[key]:
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
            write_json(folder / META, {**meta, SEALED: True})  # again: a stage may have emptied its folder
            self._finish(key)

    def _finish(self, key: str) -> None:
        remove_halves(self.partial(key))
        digests.seal(self.partial(key))
        flush_tree(self.partial(key))
        self.partial(key).rename(self.path(key))
        flush(self.root)
        _read_only(self.path(key))

    def discard(self, key: str) -> None:
        """Removes an artifact and its partial folder. A reader sees it whole or not at all."""
        self._sound.discard(key)
        with locked(self.root / f"{key}.lock"):
            _bury(self.path(key))
            _bury(self.partial(key))
            spent.forget(self.root, key)

    def give_up(self, key: str) -> None:
        """Removes what was begun of an artifact, so that its stage begins anew."""
        with locked(self.root / f"{key}.lock"):
            _bury(self.partial(key))

    def busy(self, key: str) -> bool:
        """True while some process holds the key's lock."""
        return held(self.root / f"{key}.lock")

    def check_space(self) -> None:
        """Refuses to begin what the disk cannot hold; a full disk halfway costs more than a message now."""
        free = shutil.disk_usage(self.root).free
        if free < self.reserve:
            raise UserError(
                f"{free / 2**20:.0f} MB are free, {self.reserve / 2**20:.0f} MB are needed",
                where=str(self.root),
                why="the disk would be full before the artifact is finished",
                fix="free some space, or set EVENHAND_STORE (or `runtime.store`) to a folder on another disk",
            )


def _bury(folder: Path) -> None:
    if folder.is_dir():
        grave = folder.with_name(f"{folder.name}.trash")
        shutil.rmtree(grave, ignore_errors=True)  # left over from an earlier kill
        folder.rename(grave)
        shutil.rmtree(grave)


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
    """Notes what the folder is being made from. One begun under other versions says so: its bytes may be of neither.

    A note that cannot be read is damage: nobody knows what else is, so the work is begun anew.
    """
    note = folder / META
    if any(folder.iterdir()):
        before = read_note(folder)
        if before is None:
            _log.warning("%s of what was begun of %s cannot be read: it is begun anew", META, meta.get("name", folder.name))
            _empty(folder)
        elif before.get("versions") != meta.get("versions"):
            meta = {**meta, "begun_with": before.get("begun_with", before.get("versions"))}
            _log.warning("%s", changed_versions(meta))
    write_json(note, meta)
    return meta


def changed_versions(meta: Mapping[str, Any]) -> str:
    """In words: what an artifact was begun with and finished with, where versions changed between a stop and going on.

    >>> changed_versions({"name": "sft", "begun_with": {"torch": "2.12"}, "versions": {"torch": "2.13"}})
    'sft was begun with torch 2.12 and went on with torch 2.13: it may differ from a run with either'
    """
    before, now = meta.get("begun_with") or {}, meta.get("versions") or {}
    moved = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    old, new = (", ".join(f"{name} {of.get(name, 'absent')}" for name in moved) for of in (before, now))
    return f"{meta.get('name')} was begun with {old} and went on with {new}: it may differ from a run with either"


def read_note(folder: Path) -> dict[str, Any] | None:
    """What an artifact, finished or begun, is made from; None where the note is gone or no longer one."""
    try:
        found = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def remove_halves(folder: Path) -> None:
    """What a kill left of files and folders that were to appear whole: by habit of this package their names say so."""
    for pattern in (".*", "*.partial", "*.new"):
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _remove_if_empty(folder: Path) -> None:
    if all(p.name == META for p in folder.iterdir()):
        shutil.rmtree(folder)
