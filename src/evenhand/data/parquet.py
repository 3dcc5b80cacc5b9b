"""Parquet files to rows, in bounded memory: a few bytes of such a file can stand for any number of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evenhand.data.decode import RATIO, UNPACKED
from evenhand.data.rows import BadRow
from evenhand.data.values import listed
from evenhand.errors import UserError

BATCH_ROWS, BATCH_BYTES = 1024, 1 << 28
"""Rows that are unpacked at once, and what they may take: each may be as large as everything its column repeats."""
ROWS = 1 << 20
"""Rows that any file may have, however small; a larger one has at most RATIO to a byte."""


def parquet_rows(path: Path, encoding: str) -> Iterator[tuple[str, Mapping[str, Any] | BadRow]]:
    """The rows of a Parquet file, each with its place. `encoding` is not used: Parquet says its own.

    Raises UserError for what is none or is damaged, and for what unpacks to more than 200 times its size (and 64 MiB).
    """
    table, index = _opened(path), 0
    for batch in _batches(table, path):
        for row in _values(batch, path.name, index):
            yield f"{path.name}[{index}]", row
            index += 1
    if index != (said := table.metadata.num_rows):
        what = f"the Parquet file is damaged: it gives {index} rows, and says that it has {said}"
        raise UserError(what, where=path.name, fix="fetch it again")


def said_rows(path: Path) -> int:
    """How many rows a Parquet file says that it has."""
    return int(_opened(path).metadata.num_rows)


def _opened(path: Path) -> Any:
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # pyarrow raises several unrelated types for a damaged file
        raise UserError(f"not a Parquet file: {error}", where=path.name) from error


def _batches(table: Any, path: Path) -> Iterator[Any]:
    names = table.schema_arrow.names
    if len(set(names)) < len(names):
        raise UserError("two columns have one name", where=path.name, why=f"the columns are {listed(names)}", fix="rename one")
    size = path.stat().st_size
    room = max(UNPACKED, RATIO * size)
    if sum(_unpacked(table.metadata)) > room or table.metadata.num_rows > max(ROWS, RATIO * size):
        raise _bomb(path)
    batches = _damage_named(table.iter_batches(batch_size=_rows_at_once(table.metadata)), path)
    for batch in batches:
        room -= batch.nbytes
        if room < 0:
            raise _bomb(path)
        yield batch


def _damage_named(batches: Iterator[Any], path: Path) -> Iterator[Any]:
    try:
        yield from batches
    except Exception as error:  # a page that cannot be read: again one of several unrelated types
        raise UserError(f"the Parquet file is damaged: {error}", where=path.name, fix="fetch it again") from error


def _unpacked(metadata: Any) -> list[int]:
    """Bytes of the pages of each row group before compression, as the file says.

    Columns are not asked one by one: on a damaged file pyarrow ends the process there, where no exception can be caught.
    """
    return [max(metadata.row_group(group).total_byte_size, 1) for group in range(metadata.num_row_groups)]


def _rows_at_once(metadata: Any) -> int:
    """So many that even rows which each repeat the whole of the largest row group take at most `BATCH_BYTES`."""
    return min(max(BATCH_BYTES // max(_unpacked(metadata), default=1), 1), BATCH_ROWS)


def _bomb(path: Path) -> UserError:
    what = f"unpacks to more than {RATIO} times its size, as no data of texts do"
    fix = "look at what repeats in it, and write the rows you need to a JSONL file"
    return UserError(what, where=path.name, why="it could fill the memory", fix=fix)


def _values(batch: Any, name: str, index: int) -> Iterator[Mapping[str, Any] | BadRow]:
    """The rows of a batch; one by one where a value cannot be turned into Python's (no UTF-8, a date beyond year 9999)."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError, ArithmeticError):
        pass
    for i in range(len(batch)):
        try:
            yield from batch.slice(i, 1).to_pylist()
        except (ValueError, OverflowError, ArithmeticError) as error:
            yield BadRow.of(UserError(f"a value cannot be read: {error}", where=f"{name}[{index + i}]"))
