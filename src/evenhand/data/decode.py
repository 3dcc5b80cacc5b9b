"""Bytes of a file to lines, text and JSON values; what does not fit is said with file, line and byte or column."""

from __future__ import annotations

import codecs
import gzip
import itertools
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evenhand.data.values import shown_name
from evenhand.errors import UserError

LONGEST = 1 << 28
"""Bytes of a line that holds one row."""
UNPACKED, RATIO = 1 << 26, 200
"""A .gz may unpack to so many bytes, or to so many times its size: text packs 3 to 20 times, a bomb 1,000 times."""
DEEPEST = 100
"""Lists and objects within one another."""
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class _Repeated(ValueError):
    """A JSON object that has one name twice."""


def check_encoding(name: str, where: str) -> None:
    """Raises UserError unless `name` is an encoding of text that Python knows."""
    try:
        if "a\n".encode(name).decode(name) != "a\n":
            raise LookupError(f"unusable encoding: {name}")
    except (LookupError, UnicodeError) as error:
        raise UserError(str(error), where=where, fix="utf-8, utf-16, latin-1 and cp1252 are usual") from None


def check_regular(path: Path) -> None:
    """Raises UserError for a pipe, a device or a socket: data are read more than once, and those may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError("not a file but a pipe or a device", where=str(path), fix="write the rows to a file, and name that")


def byte_lines(path: Path, longest: int = 0) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, split at "\n" alone (text mode would also split at "\r" or U+2028).

    A file that ends in .gz is unpacked; a UserError when it is damaged, when it unpacks to more than 200 times its size (and
    64 MiB), or when a line has more than `longest` bytes (0: any length).
    """
    check_regular(path)
    packed = path.suffix.lower() == ".gz"
    opener: Callable[..., Any] = gzip.open if packed else open
    room = max(UNPACKED, RATIO * path.stat().st_size) if packed else math.inf
    try:
        with opener(path, "rb") as file:
            for number in itertools.count(1):
                most = min(longest or math.inf, room)
                line = file.readline(-1 if most == math.inf else int(most) + 1)
                if not line:
                    return
                if len(line) > most:
                    raise _too_long(path, number, packed=room <= (longest or math.inf))
                room -= len(line)
                yield number, line
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"not a gzip file, or cut short: {error}", where=path.name, fix="fetch it again") from error


def _too_long(path: Path, number: int, *, packed: bool) -> UserError:
    if packed:
        what = f"unpacks to more than {RATIO} times its size, as no text does"
        return UserError(
            what, where=path.name, why="it could fill the memory", fix="unpack it, look at it, and give the plain file"
        )
    fix = "one row stands on one line; if the file is one JSON list, say file_type: json"
    return UserError(f"a line of more than {LONGEST >> 20} MiB", where=f"{path.name}:{number}", fix=fix)


def text_lines(path: Path, encoding: str, longest: int = 0) -> Iterator[tuple[int, str | UserError]]:
    """The lines of a text file with their numbers; the error in place of one that cannot be decoded.

    In UTF-16 and UTF-32 the byte of "\\n" is part of other characters too: such files are decoded whole.
    """
    if "\n".encode(encoding) == b"\n":
        for number, line in byte_lines(path, longest):
            try:
                yield number, decode_line(line, encoding, f"{path.name}:{number}")
            except UserError as error:
                yield number, error
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
    except UnicodeError as error:  # some encodings do not tell the place
        raise UserError(f"not {encoding}: {error}", where=place, fix="save the file as UTF-8, or say its encoding") from None


def read_text(path: Path, encoding: str) -> str:
    """A whole text file without a byte order mark, its line ends as they are; an error names the line."""
    lines = []
    for _, line in text_lines(path, encoding):
        if isinstance(line, UserError):
            raise line
        lines.append(line)
    return ("" if "\n".encode(encoding) == b"\n" else "\n").join(lines).lstrip("\ufeff")


def parse_json(text: str, name: str, *, line: int | None = None, fix: Callable[[json.JSONDecodeError], str]) -> Any:
    """A JSON value, from one `line` of the file `name` or from the whole file.

    Raises UserError for what is no JSON, a name given twice in an object, a number of thousands of digits, and lists or
    objects more than 100 deep.
    """
    place = name if line is None else f"{name}:{line}"
    try:
        value = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        where, column = (place, f" at column {error.colno}") if line is not None else (f"{name}:{error.lineno}", "")
        raise UserError(f"not valid JSON{column}: {error.msg}", where=where, fix=fix(error)) from None
    except _Repeated as error:
        raise UserError(str(error), where=place, why="which of the two is meant cannot be known", fix="remove one") from None
    except RecursionError:
        raise _too_deep(place) from None
    except ValueError:  # the only other one that json raises: a number with more digits than Python converts
        raise UserError("a whole number of thousands of digits", where=place, fix="put it in quotes") from None
    if text.count("[") + text.count("{") > DEEPEST and _deeper(value, DEEPEST):
        raise _too_deep(place)
    return value


def _too_deep(place: str) -> UserError:
    return UserError(f"lists or objects more than {DEEPEST} deep within one another", where=place, fix="repair the file")


def _deeper(value: Any, most: int) -> bool:
    """Whether lists and objects stand within one another more than `most` deep."""
    level = [value] if isinstance(value, Mapping | list) else []
    for _ in range(most):
        inner = [each for outer in level for each in (outer.values() if isinstance(outer, Mapping) else outer)]
        level = [each for each in inner if isinstance(each, Mapping | list)]
    return bool(level)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict; raises ValueError when a name stands in it twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _Repeated(f"the name '{shown_name(twice)}' stands twice in one object")
    return made
