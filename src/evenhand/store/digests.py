"""What a finished folder held when it was finished: the size and digest of every file, written beside them, compared before use.

A disk, a copy or a hand can change a file without a word. Size and time of change are no proof (a flipped bit keeps both), so a
folder is sound only if its bytes are those of then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from evenhand.store.fingerprint import content_digest
from evenhand.store.whole import write_json

NAME = "digests.json"
Recorded = Mapping[str, tuple[int, str]]
"""File, as a path relative to its folder -> (bytes, digest)."""


def seal(folder: Path, *, but: tuple[str, ...] = ()) -> None:
    """Writes the digests of all files below `folder` beside them. The same files give the same bytes on any machine.

    Files whose names begin like one of `but` are left out.
    """
    found = {name: [(folder / name).stat().st_size, content_digest(folder / name)] for name in _files(folder, but)}
    write_json(folder / NAME, {"files": found})


def sealed(folder: Path) -> bool:
    """Whether the folder has digests at all."""
    return (folder / NAME).exists()


def recorded(folder: Path) -> Recorded:
    """What the folder held when it was finished; empty where nobody knows any more."""
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))["files"]
        return {str(name): (int(size), str(digest)) for name, (size, digest) in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def damage(folder: Path, *, up_to: int | None = None, below: str = "", but: tuple[str, ...] = ()) -> str:
    """The first difference from what the folder held, in words; empty where there is none.

    Of files of more than `up_to` bytes the size alone is compared; `below` is how the names of those begin that are looked at,
    `but` how those do that are not.
    """
    known = recorded(folder)
    if not known:
        return f"{NAME} cannot be read"
    chosen = {name: of for name, of in known.items() if name.startswith(below) and not name.startswith(but)}
    return next(filter(None, (difference(folder, name, *of, up_to) for name, of in chosen.items())), "") or _strange(
        {name for name in _files(folder, but) if name.startswith(below)} - known.keys()
    )


def difference(folder: Path, name: str, size: int, digest: str, up_to: int | None) -> str:
    """What of a file is not as it was, in words; empty where nothing is. See `damage`."""
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    if (now := path.stat().st_size) != size:
        return f"{name} has {now} bytes, and had {size} when it was finished"
    if up_to is not None and size > up_to:
        return ""
    return "" if content_digest(path) == digest else f"{name} has other bytes than when it was finished"


def _half(name: str) -> bool:
    """What a kill leaves of the digests themselves: see `whole`."""
    return name.startswith(f"{NAME}.") and name.endswith(".partial")


def _strange(names: set[str]) -> str:
    """Files that came later can change what a folder means (weights in a second file); what a desktop hides there cannot."""
    visible = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    return f"{visible[0]} was added since it was finished" if visible else ""


def _files(folder: Path, but: tuple[str, ...] = ()) -> list[str]:
    found = (Path(parent, file) for parent, _, files in os.walk(folder) for file in files)
    names = (path.relative_to(folder).as_posix() for path in found)
    return sorted(name for name in names if name != NAME and not _half(name) and not name.startswith(but))
