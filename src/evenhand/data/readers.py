"""Files to rows: each row with the place it came from ("pairs.jsonl:13"), one at a time."""

from __future__ import annotations

import csv
import inspect
import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from evenhand.data.decode import LONGEST, byte_lines, check_regular, decode_line, parse_json, read_text, text_lines
from evenhand.data.parquet import parquet_rows
from evenhand.data.rows import BadRow
from evenhand.data.values import listed, shown, shown_name
from evenhand.errors import UserError, did_you_mean, one_of
from evenhand.hub import hub_error

Placed = tuple[str, Mapping[str, Any] | BadRow]
"""A row, or the error of one that could not be read, and its place: file and line, or file and position in a list."""

_HUB_HELP = "check the name and the network, or give the path of a local file"


def read_rows(path: Path, *, file_type: str = "", encoding: str = "utf-8", field: str = "") -> Iterator[Placed]:
    """The rows of a file of a known type, by its ending or by `file_type`.

    `field` names the list inside a JSON object. A row that cannot be read comes as its error, and the others follow; raises
    UserError when the file as a whole cannot be read.
    """
    check_regular(path)
    kind = file_type or type_of(path)
    one_of("file type", kind, READERS, where=path.name)
    if kind == "json":
        return _json(path, encoding, field)
    return READERS[kind](path, encoding)


def good_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """`read_rows` for those who cannot go on after a bad row: its error is raised."""
    for place, row in read_rows(path):
        if isinstance(row, BadRow):
            raise row
        yield place, row


def type_of(path: Path) -> str:
    """The file type that the ending names (.gz aside); "" for a folder of `datasets` is "dataset"."""
    if path.is_dir():
        return "dataset"
    endings = [e.lower() for e in path.suffixes if e.lower() != ".gz"]
    kinds = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
    kinds |= {".txt": "text", ".md": "text"}
    kind = kinds.get(endings[-1]) if endings else None
    if kind is None:
        raise UserError(
            f"the ending of '{path.name}' does not say what kind of file it is",
            where=str(path),
            fix=f"say so: file_type: {' | '.join(READERS)}",
        )
    return kind


def _jsonl(path: Path, encoding: str) -> Iterator[Placed]:
    one = "each line must be one JSON object; a file that is one JSON list should end in .json"
    for number, line in text_lines(path, encoding, LONGEST):
        place = f"{path.name}:{number}"
        try:
            if isinstance(line, UserError):
                raise line
            if text := line.strip("\ufeff \t\r\n"):
                yield place, _object(parse_json(text, path.name, line=number, fix=lambda error: one), place)
        except UserError as error:
            yield place, BadRow.of(error)


def _json(path: Path, encoding: str, field: str) -> Iterator[Placed]:
    def fix(error: json.JSONDecodeError) -> str:
        return "repair the file" + ("; it looks like JSON lines: say file_type: jsonl" if error.msg == "Extra data" else "")

    data = parse_json(read_text(path, encoding), path.name, fix=fix)
    if field:
        if not isinstance(data, Mapping) or field not in data:
            keys = list(data) if isinstance(data, Mapping) else []
            raise UserError(
                f"no field '{field}'", where=path.name, fix=did_you_mean(field, keys) if keys else "the file is a list"
            )
        data = data[field]
    if not isinstance(data, list):
        found = f"an object with {listed(data, 8)}" if isinstance(data, Mapping) else shown(data)
        raise UserError(f"expected a list of objects, found {found}", where=path.name, fix="name the list in it: field: NAME")
    for index, row in enumerate(data):
        place = f"{path.name}[{index}]"
        yield place, _object(row, place)


def _object(row: Any, place: str) -> Mapping[str, Any] | BadRow:
    if not isinstance(row, Mapping):
        return BadRow.of(UserError(f"expected an object with named fields, found {shown(row)}", where=place))
    return row


def _csv(path: Path, encoding: str, delimiter: str = ",") -> Iterator[Placed]:
    """Cells under the names of the first line. A line that cannot be decoded spoils its own row alone."""
    wrong: dict[int, UserError] = {}
    csv.field_size_limit(1 << 30)
    lines = _csv_lines(path, encoding, wrong)
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        header = next(reader, None)
        if not header:
            raise UserError("the file is empty", where=path.name, fix="the first line must name the columns")
        if wrong:
            raise wrong[min(wrong)]
        if _at_end(lines):
            raise _unclosed(f"{path.name}:1")
        _check_header(header, path.name)
        line = reader.line_num
        for cells in reader:
            first, line = line + 1, reader.line_num
            place = f"{path.name}:{first}"
            error = wrong[min(wrong)] if wrong else _unclosed(place) if _at_end(lines) else None
            wrong.clear()
            if cells:
                yield place, BadRow.of(error) if error else _cells(header, cells, place)
    except csv.Error as error:
        raise UserError(f"not a table: {error}", where=f"{path.name}:{reader.line_num}", fix="check its quotes") from None


def _at_end(lines: Generator[str]) -> bool:
    """Whether the table's reader has asked for a line behind the last one: the row that it then gives is an open quote's."""
    return inspect.getgeneratorstate(lines) == inspect.GEN_CLOSED


def _unclosed(place: str) -> UserError:
    what = "a quote is opened here and never closed, so that all lines below are one cell"
    return UserError(what, where=place, fix="close it, or write a quote inside of a cell twice")


def _csv_lines(path: Path, encoding: str, wrong: dict[int, UserError]) -> Generator[str]:
    """The lines as the table's reader asks for them; those that cannot be decoded keep their commas and quotes.

    Into `wrong` go, by line, the errors of those among the lines asked for: nothing is read that nobody wants.
    """
    if "\n".encode(encoding) != b"\n":
        yield from io.StringIO(read_text(path, encoding), newline="")
        return
    for number, line in byte_lines(path):
        try:
            text = decode_line(line, encoding, f"{path.name}:{number}")
        except UserError as error:
            wrong[number] = error
            text = line.decode(encoding, errors="replace")
        yield from io.StringIO(text.lstrip("\ufeff") if number == 1 else text, newline="")


def _cells(header: list[str], cells: list[str], place: str) -> Mapping[str, Any] | BadRow:
    if len(cells) != len(header):
        what = f"{len(cells)} cells where the header names {len(header)}"
        return BadRow.at(place, what, fix="put cells with commas or line breaks in double quotes")
    if sum(bool(cell) for name, cell in zip(header, cells, strict=True) if not name) > 1:
        return BadRow.at(place, "values in several columns that have no name", fix="name the columns in the first line")
    return {name: _cell(value) for name, value in zip(header, cells, strict=True)}


def _check_header(header: list[str], name: str) -> None:
    """Every column has a name of its own, and the cells are cut where the file means them to be."""
    twice = next((column for column, times in Counter(header).items() if column and times > 1), None)
    if twice is not None:
        why = "which of the two is meant cannot be known"
        raise UserError(f"two columns are named '{shown_name(twice)}'", where=f"{name}:1", why=why, fix="rename one")
    other = next((mark for mark in (";", "\t", "|") if len(header) == 1 and mark in header[0]), "")
    if other:
        fix = "say file_type: tsv" if other == "\t" else "save it with commas"
        raise UserError(f"the columns are separated by {other!r}, not by commas", where=f"{name}:1", fix=fix)


def _cell(value: str) -> Any:
    """A cell; one that holds a JSON list or object (messages, scores) is read as such, an empty one is missing."""
    if value[:1] in ("[", "{") and value[-1:] in ("]", "}"):
        try:
            return parse_json(value, "", fix=lambda error: "")
        except UserError:
            return value  # text that happens to stand in brackets
    return value or None


def _dataset(path: Path, encoding: str) -> Iterator[Placed]:
    return dataset_rows(path, "")


def dataset_rows(path: Path, split: str) -> Iterator[Placed]:
    """Rows of a folder that `datasets.save_to_disk` wrote; `split` picks one of a DatasetDict."""
    import datasets

    try:
        data = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        names = ", ".join(sorted(p.name for p in path.iterdir())[:8])
        raise UserError(
            f"the folder is not one that datasets.save_to_disk wrote (it has {names or 'nothing'})",
            where=str(path),
            fix="give the path of one file, or a list of files",
        ) from error
    except Exception as error:  # pyarrow's, json's and the library's own, for one and the same cause
        raise UserError(f"the folder is damaged: {error}", where=str(path), fix="write it again by save_to_disk") from error
    if isinstance(data, datasets.DatasetDict):
        data = data[_pick_split(list(data), split, str(path))]
    elif split and str(data.split or "") != split:
        raise UserError(f"there is no split '{split}': the folder holds one data set", where=str(path), fix="leave split out")
    for index, row in _whole(data, str(path)):
        yield f"{path.name}[{index}]", row


def _whole(data: Any, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The numbered rows of a data set of the library; a UserError for whatever it raises while it reads them."""
    rows = iter(data)
    for index in itertools.count():
        try:
            row = next(rows, None)
        except Exception as error:  # pyarrow's, an image decoder's, the network's: for one and the same cause
            what = f"row {index} cannot be read"
            raise hub_error(error, what, where=where, fix="check the data set by itself") from error
        if row is None:
            return
        yield index, row


def hub_rows(name: str, *, config: str, split: str, revision: str, streaming: bool, files: str = "") -> Iterator[Placed]:
    """Rows of a data set of the Hugging Face Hub, by its name."""
    import datasets

    options = {"revision": revision or None, "streaming": streaming, "data_files": files or None}
    what, where = f"cannot load the data set '{name}'", f"hub {name}"
    try:
        data = datasets.load_dataset(name, config or None, split=split or None, **options)
    except Exception as error:  # the library raises its own, its HTTP library's, and plain ValueErrors for one and the same cause
        raise hub_error(error, what, where=where, fix=_HUB_HELP) from error
    if isinstance(data, dict):
        data = data[_pick_split(list(data), split, name)]
    for index, row in _whole(data, f"hub {name}"):
        yield f"{name}[{index}]", row


def _pick_split(splits: list[str], wanted: str, where: str) -> str:
    """The split asked for; without a wish, "train" or the only one."""
    if wanted:
        if wanted not in splits:
            raise UserError(f"no split '{wanted}'", where=where, fix=did_you_mean(wanted, splits))
        return wanted
    if len(splits) == 1:
        return splits[0]
    raise UserError(f"there are several splits: {', '.join(splits)}", where=where, fix=f"say which: split: {splits[0]}")


READERS: Mapping[str, Callable[[Path, str], Iterator[Placed]]] = {
    "jsonl": _jsonl,
    "json": lambda path, encoding: _json(path, encoding, ""),
    "csv": _csv,
    "tsv": lambda path, encoding: _csv(path, encoding, "\t"),
    "parquet": parquet_rows,
    "dataset": _dataset,
    "text": lambda path, encoding: iter([(path.name, {"text": read_text(path, encoding)})]),
}
