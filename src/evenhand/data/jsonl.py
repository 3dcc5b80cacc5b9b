"""The canonical file form of groups: one JSON object per line, lossless, same bytes for the same groups.

Every artifact that holds groups (datasets, rollouts, generations) is such a file. A line looks like::

    {"prompt": "Hi", "id": "9f..", "meta": {}, "completions": [{"content": "Hello"}], "scores": [null], "parts": {}}

NaN is written as null and infinities as "inf" and "-inf", so that the file is valid JSON; floats keep every bit.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.types import Completion, Content, Finish, Group, Message, Prompt

FIELDS = ("prompt", "id", "meta", "completions", "scores", "parts")


def group_to_json(group: Group) -> dict[str, Any]:
    """The canonical JSON object of a group.

    >>> group_to_json(Group(prompt=Prompt(content="Hi", id="a"), completions=(Completion(content="Yo"),)))["scores"]
    [None]
    """
    return {
        "prompt": _content_to_json(group.prompt.content),
        "id": group.prompt.id,
        "meta": dict(group.prompt.meta),
        "completions": [_completion_to_json(c) for c in group.completions],
        "scores": [_number_to_json(s) for s in group.scores],
        "parts": {name: [_number_to_json(v) for v in values] for name, values in group.parts.items()},
    }


def group_from_json(row: Mapping[str, Any]) -> Group:
    """The inverse of `group_to_json`; raises KeyError, TypeError or ValueError on a row of another form."""
    return Group(
        prompt=Prompt(content=_content_from_json(row["prompt"]), id=row["id"], meta=row["meta"]),
        completions=tuple(_completion_from_json(c) for c in row["completions"]),
        scores=tuple(_number_from_json(s) for s in row["scores"]),
        parts={name: tuple(_number_from_json(v) for v in values) for name, values in row["parts"].items()},
    )


def write_groups(path: str | Path, groups: Iterable[Group]) -> int:
    """Write groups to `path` (gzip when it ends in .gz) and return how many.

    Atomic: the file appears complete or not at all. Deterministic: equal groups give equal bytes.
    """
    return write_rows(path, (group_to_json(g) for g in groups))


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write JSON objects as JSON lines, atomically (see `write_groups`)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    count = 0
    try:
        with open(partial, "wb") as raw, _compressor(path, raw) as out:
            for row in rows:
                out.write(_line(row))
                count += 1
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def read_groups(path: str | Path) -> list[Group]:
    """Every group of a canonical file, in order. Raises UserError with file and line on a line that is not one."""
    return list(iter_groups(path))


def iter_groups(path: str | Path) -> Iterator[Group]:
    """`read_groups` one at a time, for files larger than memory."""
    path = Path(path)
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    if not path.is_file():
        raise UserError("no such file", where=str(path), fix="give a file written by write_groups")
    with opener(path, "rb") as lines:  # bytes: a line ends at "\n" only, never at U+2028 or "\r"
        for number, line in enumerate(lines, 1):
            try:
                yield group_from_json(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"not a canonical group ({type(error).__name__}: {error})",
                    where=f"{path.name}:{number}",
                    fix=f"each line needs {', '.join(FIELDS)}; load other files with evenhand.data.load",
                ) from error


def _compressor(path: Path, raw: io.BufferedWriter) -> Any:
    """A gzip layer without a time stamp or name (equal bytes for equal groups), or the plain file."""
    return gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) if path.suffix == ".gz" else raw


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise UserError(f"a value cannot be written as JSON: {error}", where=f"prompt {row.get('id', '?')}") from error
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, as some web texts have: only an escape keeps it
        return json.dumps(row).encode() + b"\n"


def _content_to_json(content: Content) -> str | list[dict[str, str]]:
    return content if isinstance(content, str) else [{"role": m.role, "content": m.content} for m in content]


def _content_from_json(value: str | list[dict[str, str]]) -> Content:
    return value if isinstance(value, str) else tuple(Message(m["role"], m["content"]) for m in value)


def _completion_to_json(completion: Completion) -> dict[str, Any]:
    row: dict[str, Any] = {"content": _content_to_json(completion.content)}
    if completion.tokens is not None:
        row["tokens"] = list(completion.tokens)
    if completion.behaviour_logp is not None:
        row["behaviour_logp"] = [_number_to_json(v) for v in completion.behaviour_logp]
    if completion.finish is not Finish.GIVEN:
        row["finish"] = completion.finish.value
    return row


def _completion_from_json(row: Mapping[str, Any]) -> Completion:
    tokens, logp = row.get("tokens"), row.get("behaviour_logp")
    return Completion(
        content=_content_from_json(row["content"]),
        tokens=None if tokens is None else tuple(tokens),
        behaviour_logp=None if logp is None else tuple(_number_from_json(v) for v in logp),
        finish=Finish(row.get("finish", Finish.GIVEN)),
    )


def _number_to_json(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return ("inf" if value > 0 else "-inf") if math.isinf(value) else value


def _number_from_json(value: float | str | None) -> float:
    return math.nan if value is None else float(value)
