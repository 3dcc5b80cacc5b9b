"""JSON and JSONL files of other tools, read without surprises."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evenhand.errors import UserError

Row = dict[str, Any]


def read_rows(path: str | Path) -> list[Row]:
    """The objects of a JSON list or of JSON lines, plain or gzipped. A line ends at a line feed only: texts hold U+2028."""
    return [row for _, row in read_located(path)]


def read_located(path: str | Path) -> list[tuple[str, Row]]:
    """The same, each with its place: `file:line` of JSON lines and tables, `file[index]` of a list.

    CSV and TSV files (plain or gzipped, with a header) are read too; their values stay texts.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("there is no such file", where=str(path), fix="check the path")
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        data = file.read()
    if is_table(path):
        found = _table(data, path)
    elif data.lstrip()[:1] == b"[":
        found = [(f"{path.name}[{i}]", row) for i, row in enumerate(_whole(data, path))]
    else:
        lines = enumerate(data.split(b"\n"), 1)
        found = [(f"{path.name}:{i}", _line(text, path, i)) for i, text in lines if text.strip()]
    if not found:
        raise UserError("holds no rows", where=str(path))
    for where, row in found:
        if not isinstance(row, dict):
            raise UserError("is not an object", where=where)
    return found


def is_table(path: Path) -> bool:
    """True for a CSV or TSV file by its name."""
    return path.name.removesuffix(".gz").endswith((".csv", ".tsv"))


def _table(data: bytes, path: Path) -> list[tuple[str, Row]]:
    delimiter = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ","
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True)
        rows = [(f"{path.name}:{reader.line_num}", row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as a table: {error}", where=str(path)) from error
    for where, row in rows:
        if None in row or None in row.values():
            raise UserError(
                "has not as many fields as the header", where=where, fix=f"columns: {', '.join(reader.fieldnames or ())}"
            )
    return rows


def write_json_list(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON list, as AlpacaEval's tools read it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(rows), ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in rows), encoding="utf-8")


def merge_jsonl(path: str | Path, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Puts rows into a file of JSON lines that others share: lines that agree in `keys` are replaced, the rest stay in place."""
    path = Path(path)
    name = lambda row: tuple(str(row.get(k)) for k in keys)  # noqa: E731
    known: dict[Any, Mapping[str, Any]] = {name(r): r for r in read_rows(path)} if path.is_file() else {}
    write_jsonl(path, {**known, **{name(r): r for r in rows}}.values())


def field(row: Mapping[str, Any], name: str, where: str) -> Any:
    """A field that must be there."""
    if name not in row:
        raise UserError(f"'{name}' is missing", where=where, fix=f"the row has: {', '.join(row)}")
    return row[name]


def column(rows: Sequence[Row], name: str, path: str | Path) -> list[Any]:
    """A field of every row."""
    return [field(row, name, f"{Path(path).name}[{i}]") for i, row in enumerate(rows)]


def _whole(data: bytes, path: Path) -> list[Any]:
    try:
        return list(json.loads(data))
    except ValueError as error:
        raise UserError(f"not JSON: {error}", where=str(path)) from error


def _line(text: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"not JSON: {error}", where=f"{path.name}:{number}") from error
