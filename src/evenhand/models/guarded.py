"""transformers' loaders, with one short error that names what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evenhand.errors import UserError


def guarded(load: Any, path: str | Path, **named: Any) -> Any:
    """Call transformers, turning its long errors about files into one that names what is missing."""
    local = Path(path).expanduser()
    looks_local = local.exists() or str(path).startswith((".", "/", "~")) or str(path).count("/") > 1
    if looks_local and not local.is_dir():
        raise UserError("no such folder", where=str(path), fix="give a model folder or a name on the Hub")
    if looks_local and not any((local / name).exists() for name in ("config.json", "tokenizer_config.json", "tokenizer.json")):
        raise UserError("no config.json", where=str(path), fix="point to a folder written by save_pretrained")
    try:
        return load(str(local) if looks_local else str(path), **named)
    except (OSError, ValueError, KeyError) as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            lines[0] if lines else type(error).__name__,
            where=str(path),
            why="transformers could not load it",
            fix="check the name, the folder's files and, for a name on the Hub, the connection",
        ) from error
