"""Which files of this machine a source reads: what an experiment's cache has to watch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenhand.data.decode import check_regular
from evenhand.data.recipes import recipe, with_recipe


def local_files(source: Mapping[str, Any] | str) -> list[Path]:
    """Every existing file or folder that a source names: its paths, those of a mixture's parts, and what it is cleaned against.

    >>> local_files("org/not-here")
    []
    """
    if isinstance(source, str):
        return _existing([source])
    if "recipe" in source and "mix" in recipe(source["recipe"]):
        source = with_recipe(source)
    named = source.get("path", ())
    found = _existing([named] if isinstance(named, str) else list(named))
    found += _existing(source.get("local", {}).values())
    against = (source.get("clean") or {}).get("against", ())
    inner = [*source.get("mix", ()), *([against] if isinstance(against, str | Mapping) else against)]
    return list(dict.fromkeys([*found, *(path for part in inner for path in local_files(part))]))


def _existing(names: Any) -> list[Path]:
    found = [path for path in (Path(str(name)).expanduser() for name in names) if path.exists()]
    for path in found:
        check_regular(path)
    return found
