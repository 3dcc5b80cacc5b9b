"""What lies in a store: artifacts finished, half-finished and thrown away, locks, who uses what, and the disk it takes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from evenhand.store.fingerprint import file_state
from evenhand.store.locks import held, holder
from evenhand.store.runs import KnownRun, known_runs
from evenhand.store.store import Store, read_note

_FOLDER = re.compile(r"([0-9a-f]{8,64})(\.partial)?(\.trash)?")
_LOCK = re.compile(r"([0-9a-f]{8,64})\.lock")


class State(StrEnum):
    """Where an artifact stands."""

    FINISHED = "finished"
    HALF = "half-finished"
    """Begun and stopped: the next run of its stage goes on from here."""
    WRITTEN = "being written"
    TRASH = "thrown away"
    """Left by a kill while it was removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArtifact:
    """A folder of a store: the stage `name` of `kind`, `size` in bytes, the run directories `runs` that use it.

    `used_by` counts the finished artifacts that were made from it; `holder` is the process that writes it.
    """

    folder: Path
    key: str
    state: State
    name: str = ""
    kind: str = ""
    size: int = 0
    runs: tuple[Path, ...] = ()
    used_by: int = 0
    holder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A lock file. `stale`: nobody holds it; `holder` is the process that does, or did."""

    path: Path
    stale: bool
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Everything in a store. `runs` are those that are still there, `gone` those whose folder is not."""

    store: Store
    entries: tuple[StoredArtifact, ...]
    locks: tuple[Lock, ...]
    runs: tuple[KnownRun, ...]
    gone: tuple[KnownRun, ...]
    other: Mapping[str, int] = field(default_factory=dict)
    """File -> bytes, of what is no artifact: replies of judges."""

    @property
    def size(self) -> int:
        return sum(e.size for e in self.entries) + sum(self.other.values())


def survey(store: Store) -> Survey:
    """Looks at every folder and lock of a store; nothing is changed, and no file of an artifact is read but its note."""
    runs = known_runs(store)
    living = [run for run in runs if not run.gone]
    paths = sorted(store.root.iterdir()) if store.root.is_dir() else []
    folders = [(path, found) for path in paths if path.is_dir() and (found := _FOLDER.fullmatch(path.name))]
    notes = {path: read_note(path) or {} for path, _ in folders}
    made_from: Counter[str] = Counter(
        str(i.get("key")) for note in notes.values() for i in note.get("inputs", {}).values() if isinstance(i, Mapping)
    )
    entries = tuple(
        StoredArtifact(
            folder=path, key=found[1], state=_state(store, found), name=str(notes[path].get("name", "")),
            kind=str(notes[path].get("kind", "")), size=size_of(path), used_by=made_from[found[1]],
            runs=tuple(run.folder for run in living if found[1] in run.keys),
            holder=holder(store.root / f"{found[1]}.lock") if store.busy(found[1]) else "",
        )
        for path, found in folders
    )  # fmt: skip
    locks = tuple(Lock(path=p, stale=not held(p), holder=holder(p)) for p in paths if _LOCK.fullmatch(p.name))
    noted = {run.note for run in runs}
    plain = (p for p in paths if p.is_file() and p not in noted and not _LOCK.fullmatch(p.name))
    other = {p.name: state[0] for p in plain if (state := file_state(p)) is not None}
    return Survey(
        store=store, entries=entries, locks=locks, runs=tuple(living), gone=tuple(run for run in runs if run.gone), other=other
    )


def is_store(folder: Path) -> bool:
    """Whether a folder holds what a store does, or nothing yet."""
    names = [path.name for path in folder.iterdir()]
    return not names or any(_FOLDER.fullmatch(n) or _LOCK.fullmatch(n) for n in names) or bool(known_runs(Store(folder)))


def _state(store: Store, found: re.Match[str]) -> State:
    if found[3]:
        return State.TRASH
    if not found[2]:
        return State.FINISHED
    return State.WRITTEN if store.busy(found[1]) else State.HALF


def size_of(folder: Path, but: frozenset[int] = frozenset()) -> int:
    """Bytes of the files below a folder, each file once however many names it has; those of the inodes `but` left out."""
    return sum({inode: size for inode, size in _files(folder) if inode not in but}.values())


def inodes(folder: Path) -> frozenset[int]:
    """The files below a folder, whatever their names."""
    return frozenset(inode for inode, _ in _files(folder))


def _files(folder: Path) -> Iterator[tuple[int, int]]:
    """Inode and bytes of every file below a folder; one that a stage at work removes meanwhile is none."""
    for parent, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):
                found = os.lstat(os.path.join(parent, file))
                yield found.st_ino, found.st_size
