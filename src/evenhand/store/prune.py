"""What of a store nobody wants any more: chosen first, shown, and removed only then."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from evenhand.store.locks import remove_stale
from evenhand.store.store import Store
from evenhand.store.survey import State, StoredArtifact, Survey


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something to remove, and why; `entry` is None for a lock or a note."""

    path: Path
    why: str
    entry: StoredArtifact | None = None

    @property
    def size(self) -> int:
        return self.entry.size if self.entry is not None else 0


def candidates(found: Survey, *, unused: bool = False, half: bool = False) -> list[Candidate]:
    """What may go: leftovers of kills, half-finished artifacts that no run wants, stale locks, notes of runs that are gone.

    `unused` adds finished artifacts that no run uses, `half` the half-finished ones of runs that are there: they begin anew.
    What a process is writing is never among them.
    """
    chosen = []
    for entry in found.entries:
        if entry.state is State.TRASH:
            chosen.append(Candidate(entry.folder, "left by a kill while it was removed", entry))
        elif entry.state is State.HALF and (half or not entry.runs):
            chosen.append(
                Candidate(entry.folder, "half-finished, and " + ("asked for" if entry.runs else "no run wants it"), entry)
            )
        elif entry.state is State.FINISHED and unused and not entry.runs:
            chosen.append(Candidate(entry.folder, "no run uses it", entry))
    chosen += [Candidate(lock.path, f"a lock that nobody holds{_of(lock.holder)}") for lock in found.locks if lock.stale]
    return chosen + [Candidate(run.note, f"the note of a run that is gone ({run.folder})") for run in found.gone]


def _of(process: str) -> str:
    return f" (left by {process})" if process else ""


def remove(found: Survey, chosen: list[Candidate]) -> list[Candidate]:
    """Removes what was chosen; returns what could not go, because a process has begun to write it meanwhile."""
    left = []
    for candidate in chosen:
        if candidate.entry is None:
            done = remove_stale(candidate.path) if candidate.path.suffix == ".lock" else _unlinked(candidate.path)
        else:
            done = _removed(found.store, candidate.entry)
        left += [] if done else [candidate]
    return left


def _removed(store: Store, entry: StoredArtifact) -> bool:
    if store.busy(entry.key):
        return False
    if entry.state is State.TRASH:
        shutil.rmtree(entry.folder)
    elif entry.state is State.HALF:
        store.give_up(entry.key)
    else:
        store.discard(entry.key)
    return True


def _unlinked(path: Path) -> bool:
    path.unlink(missing_ok=True)
    return True
