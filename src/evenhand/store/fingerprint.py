"""Names made from content: canonical JSON, files, folders. Equal content, equal name, on any machine."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.store.whole import write_whole

STORE = 2
"""Part of every key. Raised when what a key means changes: all artifacts of before are then no longer found."""
FIRST_DEFAULTS = Path(__file__).parent / "first_defaults.json"
"""The default that every field had when it first entered a key, by class and field; a test keeps the record complete."""

MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "trained.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template.*",
)
"""The files of a model folder that determine what it computes (a README or an optimizer state does not)."""

PACKAGE = Path(__file__).parent.parent
State = list[int] | None
"""Size, time of change and number of a file; None where it is not there."""
_SETTLED_NS = 2_000_000_000
_CHUNK = 1 << 20


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: one text per value. Tuples are lists; 1 and 1.0 differ; other types are a TypeError.

    >>> canonical({"b": (1, 2.0), "a": None})
    '{"a":null,"b":[1,2.0]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """A 32-hex-digit name of a JSON value.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}), digest([1]) == digest([1.0])
    (True, False)
    """
    return hashlib.blake2b(canonical(value).encode(), digest_size=16).hexdigest()


def stage_key(
    kind: str, version: int, spec: Any, seed: int, inputs: Mapping[str, str], code: Mapping[str, str] | None = None
) -> str:
    """The key of a stage's artifact: everything that decides its bytes.

    `inputs` are the keys of its inputs, by role; `code` fingerprints of what a user wrote and the stage runs.
    """
    parts = {"store": STORE, "kind": kind, "version": version, "spec": decisive(spec), "seed": seed, "inputs": dict(inputs)}
    return digest(parts | ({"code": dict(code)} if code else {}))


def decisive(value: Any) -> Any:
    """What of a spec enters a key, as JSON: of a dataclass the fields that do not stand at their first default.

    So a new field with a default changes no key; a default that is changed later changes the keys of those who use the new one.
    Fields marked `metadata={"decides": False}` say how a result is reached, not what it is, and never enter. For a mapping marked
    `metadata={"defaults": f}`, `f(spec)` gives the name of its defaults and the defaults.
    """
    if is_dataclass(value) and not isinstance(value, type):
        named = ((f, decisive_field(value, f)) for f in fields(value) if f.metadata.get("decides", True))
        return {f.name: item for f, item in named if canonical(item) != canonical(first_default(type(value), f))}
    if isinstance(value, Mapping):
        return {str(k): decisive(v) for k, v in value.items()}
    return [decisive(v) for v in value] if isinstance(value, list | tuple) else value


def decisive_field(spec: Any, field: Field[Any]) -> Any:
    item = decisive(getattr(spec, field.name))
    if "defaults" not in field.metadata:
        return item
    owner, defaults = field.metadata["defaults"](spec)
    first = {name: recorded().get(owner, {}).get(name, decisive(default)) for name, default in defaults.items()}
    return {name: v for name, v in item.items() if name not in first or canonical(v) != canonical(first[name])}


_NONE = ["no default"]


def first_default(owner: type, field: Field[Any]) -> Any:
    """The default a field had when it was first recorded, else the one it has; a value of no field where it has none."""
    known = recorded().get(owner.__name__, {})
    if field.name in known:
        return known[field.name]
    default = default_of(field)
    return _NONE if default is MISSING else decisive(default)


def default_of(field: Field[Any]) -> Any:
    """The default that a field has; MISSING where it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


@cache
def recorded() -> Mapping[str, Mapping[str, Any]]:
    return json.loads(FIRST_DEFAULTS.read_text(encoding="utf-8"))


def file_fingerprint(path: Path) -> str:
    """A 32-hex-digit name of a file's bytes. Remembered by (path, size, mtime, inode), so that large weights are read once.

    A file written in the last two seconds is not remembered: it could change again without its mtime moving.
    """
    path = Path(path).resolve()
    before = path.stat()
    identity = [str(path), before.st_size, before.st_mtime_ns, before.st_ino]
    note = user_cache() / "fingerprints" / f"{digest(identity)}.txt"
    if note.is_file() and len(known := note.read_text()) == 32:
        return known
    name = content_digest(path)
    after = path.stat()
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if unchanged and time.time_ns() - before.st_mtime_ns > _SETTLED_NS:
        _remember(note, name)
    return name


def folder_fingerprint(folder: Path, patterns: Iterable[str] = ("*",)) -> str:
    """A name of the relative paths and bytes of the files below `folder` whose file name matches one of `patterns`."""
    folder, patterns = Path(folder), tuple(patterns)
    return digest([[f, file_fingerprint(folder / f)] for f in matching(folder, patterns)])


def matching(folder: Path, patterns: Iterable[str]) -> list[str]:
    """The files below `folder` whose file name matches one of `patterns`, as sorted relative paths.

    Raises: FileNotFoundError where there is none.
    """
    patterns = tuple(patterns)
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    chosen = [f for f in files if any(fnmatch.fnmatchcase(f.rsplit("/", 1)[-1], p) for p in patterns)]
    if not chosen:
        raise FileNotFoundError(f"{folder} has no file matching {', '.join(patterns)}")
    return chosen


def model_fingerprint(folder: Path) -> str:
    """A name of what a model folder computes: its weights, configuration, tokenizer and chat template."""
    try:
        return folder_fingerprint(folder, MODEL_FILES)
    except FileNotFoundError:
        raise UserError(
            "no model is in this folder", where=str(folder), fix="point to a folder written by save_pretrained"
        ) from None


def content_digest(path: Path) -> str:
    """A 32-hex-digit name of a file's bytes, read now. See `file_fingerprint` for one that is remembered."""
    hasher = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def user_cache() -> Path:
    """What costs time to find out again is remembered here, and nothing that a result needs: EVENHAND_CACHE, or the user's."""
    return Path(os.environ.get("EVENHAND_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evenhand")


def _remember(note: Path, name: str) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written (read-only home, full disk) costs time, never a result
        note.parent.mkdir(parents=True, exist_ok=True)
        write_whole(note, name)


def file_state(path: Path) -> State:
    """What of a file changes when it is written."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def installed() -> list[list[Any]]:
    """The files of this package as they are now."""
    files = sorted(p for kind in ("*.py", "*.json", "*.yaml", "*.j2", "*.css", "*.js") for p in PACKAGE.rglob(kind))
    return [[str(p), file_state(p)] for p in files]
