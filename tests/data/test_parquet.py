"""Parquet files that stand for more than they hold: bounded memory and one message."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from evenhand.data.load import load
from evenhand.data.readers import read_rows
from evenhand.errors import UserError

MEMORY = 3 << 30
"""Bytes of address space of a process that reads a bomb: the libraries take about one of the three GiB."""
CODE = """
import resource, sys
import pyarrow.parquet
import evenhand.data.readers
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
from pathlib import Path
from evenhand.errors import UserError
try:
    print(sum(1 for _ in evenhand.data.readers.read_rows(Path(sys.argv[1]))))
except UserError as error:
    print(error)
"""


def written(path, rows, value, **options):
    """`rows` times the same value, which is in the file once."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))
    table = pa.table({"prompt": column, "completion": pa.array(["a"] * rows)})
    parquet.write_table(table, path, compression="zstd", dictionary_pagesize_limit=2**31 - 1, **options)
    return path


def test_a_bomb_is_refused_in_bounded_memory(tmp_path):
    """2,000 times 32 MiB in a few kilobytes: 64 GB."""
    path = written(tmp_path / "bomb.parquet", 2000, "x" * (32 << 20))
    assert path.stat().st_size < 20_000
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CODE.format(memory=MEMORY), path], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("bomb.parquet: unpacks to more than 200 times its size, as no data of texts do\n")
    assert done.stdout.count("\n") <= 4


def test_a_bomb_of_lists_is_refused(tmp_path):
    value = [{"role": "user", "content": "x" * (8 << 20)}]
    table = pa.table({"messages": pa.array([value] * 12)})
    parquet.write_table(table, tmp_path / "b.parquet", compression="zstd", dictionary_pagesize_limit=2**31 - 1)
    with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
        list(read_rows(tmp_path / "b.parquet"))


def test_rows_without_end_are_refused_before_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr("evenhand.data.parquet.ROWS", 1000)
    parquet.write_table(pa.table({"prompt": pa.nulls(3_000_000, pa.string())}), tmp_path / "nulls.parquet")
    with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
        next(read_rows(tmp_path / "nulls.parquet"))


def test_what_repeats_within_reason_is_read(tmp_path):
    """A long system prompt in each of many rows is usual: 5,000 times 4 kB are 20 MB in a few kilobytes."""
    rows = [row for _, row in read_rows(written(tmp_path / "rows.parquet", 5000, "y" * 4096))]
    assert len(rows) == 5000
    assert rows[4999] == {"prompt": "y" * 4096, "completion": "a"}


def test_large_columns_are_read_whole_a_few_rows_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("evenhand.data.parquet.BATCH_BYTES", 1)
    table = pa.table({"prompt": [f"q{i}" for i in range(40)], "completion": [f"a{i}" for i in range(40)]})
    parquet.write_table(table, tmp_path / "r.parquet", row_group_size=7)
    assert [g.prompt.text for g in load(str(tmp_path / "r.parquet")).groups] == [f"q{i}" for i in range(40)]


def test_a_footer_that_lies_about_its_rows_loses_none_unsaid(tmp_path):
    """One row group of three says 36 rows in place of 100: whoever believes it reads 236 of 300 rows."""
    rows = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(300)]
    path, said = tmp_path / "rows.parquet", []
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=100)
    data = path.read_bytes()
    hundred, fewer = b"\xc8\x01", b"\xc8\x00"  # as the footer's numbers are written; the second is 36
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for at in (i for i in range(begin, len(data) - 8) if data[i : i + 2] == hundred):
        path.write_bytes(data[:at] + fewer + data[at + 2 :])
        try:
            assert [row for _, row in read_rows(path)] == rows
        except UserError as error:
            said.append(error.what)
    assert "the Parquet file is damaged: it gives 236 rows, and says that it has 300" in said
