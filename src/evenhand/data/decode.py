"""Bytes of a file to lines, text and JSON values; what does not fit is said with file, line and byte or column."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evenhand.errors import UserError

_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class _Repeated(ValueError):
    """A JSON object that has one name twice."""


def check_encoding(name: str, where: str) -> None:
    """Raises UserError unless `name` is an encoding of text that Python knows."""
    try:
        "".encode(name)
    except LookupError as error:
        raise UserError(str(error), where=where, fix="utf-8, utf-16, latin-1 and cp1252 are usual") from None


def byte_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, split at "\\n" alone (text mode would also split at "\\r" or U+2028).

    A file that ends in .gz is unpacked; a UserError when it is damaged.
    """
    opener: Callable[..., Any] = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as lines:
            yield from enumerate(lines, 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"not a gzip file, or cut short: {error}", where=path.name, fix="fetch it again") from error


def text_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers; an undecodable one is named.

    In UTF-16 and UTF-32 the byte of "\\n" is part of other characters too: such files are decoded whole.
    """
    if "\n".encode(encoding) == b"\n":
        for number, line in byte_lines(path):
            yield number, decode_line(line, encoding, f"{path.name}:{number}")
    else:
        whole = decode_line(b"".join(line for _, line in byte_lines(path)), encoding, path.name)
        yield from enumerate(whole.split("\n"), 1)


def decode_line(line: bytes, encoding: str, place: str) -> str:
    """Bytes as text; a UserError names the place and the byte that does not fit."""
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        said = "encoding: utf-16, which its first bytes stand for" if line.startswith(_WIDE_MARKS) else "encoding: latin-1"
        raise UserError(
            f"byte 0x{line[error.start]:02x} at position {error.start + 1} is not {encoding}",
            where=place,
            fix=f"save the file as UTF-8, or say {said} (or what it is)",
        ) from None


def read_text(path: Path, encoding: str) -> str:
    """A whole text file, its line ends as they are; an error names the line."""
    if "\n".encode(encoding) != b"\n":
        return "\n".join(line for _, line in text_lines(path, encoding))
    return "".join(line for _, line in text_lines(path, encoding))


def parse_json(text: str, name: str, *, line: int | None = None, fix: Callable[[json.JSONDecodeError], str]) -> Any:
    """A JSON value, from one `line` of the file `name` or from the whole file; a name given twice in an object is refused."""
    place = name if line is None else f"{name}:{line}"
    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        where, column = (place, f" at column {error.colno}") if line is not None else (f"{name}:{error.lineno}", "")
        raise UserError(f"not valid JSON{column}: {error.msg}", where=where, fix=fix(error)) from None
    except _Repeated as error:
        raise UserError(str(error), where=place, why="which of the two is meant cannot be known", fix="remove one") from None
    except RecursionError:
        raise UserError("lists or objects within one another without end", where=place, fix="repair the file") from None
    except ValueError:  # the only other one that json raises: a number with more digits than Python converts
        raise UserError("a whole number of thousands of digits", where=place, fix="put it in quotes") from None


def unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    """A JSON object as a dict; raises ValueError when a name stands in it twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Repeated(f"the name '{twice}' stands twice in one object")
    return made
