"""What a SIGKILL leaves: a folder as it lies before every change that is made of a name in it, and every wait for the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from tests.stages.kill_matrix import state_of

CHANGES = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "truncate")


@contextmanager
def photographed(folder: Path, album: Path) -> Iterator[list[Path]]:
    """Inside, `folder` is copied into `album` before each of these calls, where names or sizes differ from the last copy."""
    taken: list[Path] = []
    last: list[Any] = [None]
    busy: list[bool] = [False]

    def before(call: Any) -> Any:
        def changed(*given: Any, **named: Any) -> Any:
            if not busy[0] and folder.is_dir() and (now := state_of(folder)) != last[0]:
                busy[0], last[0] = True, now
                taken.append(album / f"{len(taken):03d}")
                shutil.copytree(folder, taken[-1])
                busy[0] = False
            return call(*given, **named)

        return changed

    with mock.patch.multiple(os, **{name: before(getattr(os, name)) for name in CHANGES}):
        yield taken
