"""transformers' loaders, with one short error that names what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from evenhand.errors import UserError
from evenhand.store.pointer import adapter_beside

_OF_FILES = (OSError, ValueError, KeyError, StrictDataclassError, SafetensorError)
_OF_NUMBERS = (TypeError, ArithmeticError, AttributeError)
"""What a config raises that holds other values than transformers computes with."""


def guarded(load: Any, path: str | Path, **named: Any) -> Any:
    """Call transformers, turning its long errors about files into one that names what is missing."""
    local = Path(path).expanduser()
    looks_local = local.exists() or str(path).startswith((".", "/", "~")) or str(path).count("/") > 1
    if looks_local and not local.is_dir():
        beside = adapter_beside(local)
        fix = "give a model folder or a name on the Hub" if beside is None else f"it was trained by an adapter: give {beside}"
        raise UserError("no such folder", where=str(path), fix=fix)
    if looks_local and not any((local / name).exists() for name in ("config.json", "tokenizer_config.json", "tokenizer.json")):
        raise UserError("no config.json", where=str(path), fix="point to a folder written by save_pretrained")
    try:
        return load(str(local) if looks_local else str(path), **named)
    except (*_OF_FILES, *_OF_NUMBERS) as error:
        raise UserError(
            _first_words(error),
            where=str(path),
            why="transformers could not load it",
            fix="check the name, the folder's files and, for a name on the Hub, the connection",
        ) from error


def _first_words(error: Exception) -> str:
    """The error's first line, or all where that only announces the others; with its type where a config's numbers made it."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return type(error).__name__
    said = " ".join(lines) if lines[0].endswith(":") else lines[0]
    return said if isinstance(error, _OF_FILES) else f"{type(error).__name__}: {said}"
