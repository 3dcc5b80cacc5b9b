"""The record as a file: written whole or not at all, and read in any version."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

from evenhand.configfile.schema import adapter, to_json
from evenhand.errors import UserError
from evenhand.results.record import VERSION, Results
from evenhand.results.upgrades import upgraded
from evenhand.store.whole import write_whole

T = TypeVar("T")
NAME = "results.json"
MADE_AGAIN = "give the command again that made it: what is finished is reused"
AGAIN = "run `evenhand run` again on this folder: what is finished is reused"


def load(path: str | Path) -> Results:
    """The results of a run directory, or of a `results.json`, of this version or an older one.

    Raises: UserError where there is no such file, where it is no results file, and where a newer evenhand wrote it.
    """
    path = Path(path)
    file = path / NAME if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"has no {NAME}", where=str(path), fix="give a run directory; run the experiment first: `evenhand run`")
    return read(read_json(file), where=str(file))


def read(data: Any, *, where: str = NAME) -> Results:
    """The content of a results file as a record."""
    if not isinstance(data, Mapping) or not isinstance(data.get("arms"), Mapping):
        raise UserError(f"{NAME} has no table 'arms'", where=where, fix=AGAIN)
    version = data.get("version", 0)
    if type(version) is not int or version < 0:
        raise UserError(f"{version!r} is no version of {NAME}", where=where, fix=AGAIN)
    if version > VERSION:
        raise UserError(
            f"a newer evenhand wrote this (version {version}, this one reads {VERSION})", where=where,
            fix=f"install that evenhand, or {AGAIN}",
        )  # fmt: skip
    try:
        known = upgraded(data)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"this is no {NAME} of version {version}: {error}", where=where, fix=AGAIN) from error
    return parsed(Results, known, where=where)


def parsed(tp: type[T], data: Any, *, where: str = NAME) -> T:
    """Plain JSON values as a record or a part of one. What a version does not know is left out; a wrong type is an error."""
    from pydantic import ValidationError

    try:
        return adapter(cast(Hashable, tp), "ignore").validate_json(json.dumps([plain(data)]))[0]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        raise UserError(f"{place}: {first['msg']}", where=where, fix=AGAIN) from None


def carried(tp: type[T], source: Any, **more: Any) -> T:
    """A record with the fields that `source` has under the same names, and with `more`."""
    names = [f.name for f in fields(cast(Any, tp)) if f.name not in more and hasattr(source, f.name)]
    return tp(**{name: getattr(source, name) for name in names}, **more)


def plain(value: Any) -> Any:
    """Records as JSON values; a number that is not finite becomes null, and so does an interval that has such an end.

    >>> plain({"win_rate": math.nan, "ci95": (0.1, math.inf), "seeds": (0, 1)})
    {'win_rate': None, 'ci95': None, 'seeds': [0, 1]}
    """
    return _finite(to_json(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        found = {k: _finite(v) for k, v in value.items()}
        broken = (k for k, v in found.items() if "ci95" in k and isinstance(v, list) and None in v)
        return found | dict.fromkeys(broken)
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_record(path: Path, value: Any) -> None:
    """Writes a record or plain data as JSON, whole or not at all."""
    write_whole(path, json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; NaN and infinities, which JSON lacks, read as None (absent)."""
    return _parse(_decoded(path, path.read_bytes()), where=str(path))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file. Split on newlines only: texts may hold U+2028."""
    return _objects(path, path.read_bytes())


def read_growing_jsonl(path: Path) -> list[dict[str, Any]]:
    """`read_jsonl` of a file that somebody writes: a line that has no end yet is left for the next look."""
    data = path.read_bytes()
    return _objects(path, data[: data.rfind(b"\n") + 1])


def _objects(path: Path, data: bytes) -> list[dict[str, Any]]:
    lines = _decoded(path, data).split("\n")
    return [_parse(line, where=f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"this is not UTF-8 ({error.reason} at byte {error.start})", where=str(path), fix=MADE_AGAIN) from error


def _parse(text: str, *, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        raise UserError(f"this is not JSON ({error.msg})", where=where, fix=MADE_AGAIN) from error
