"""Rows by seed, in and out of order: every row of a file is read as it is, or counted with what is wrong with it."""

from __future__ import annotations

import csv
import datetime
import io
import json
import random

import pyarrow as pa
import pytest
from pyarrow import parquet

from evenhand.data.load import load
from evenhand.data.readers import read_rows

PIECES = (*"a\"',;\t\n\x00\ufeffé🙂\u2028\x85\\{] ", "b c", "\r\n", "null", "=1")


def words(r: random.Random) -> str:
    """Some text that is not blank."""
    while not (text := "".join(r.choice(PIECES) for _ in range(r.randint(1, 6)))).strip():
        pass
    return text


def pairs(r: random.Random) -> list[tuple[str, str]]:
    return [(words(r), words(r)) for _ in range(r.randint(1, 6))]


def found(path, **source):
    data = load({"path": str(path), "on_bad_row": "skip", "format": "prompt/completion", "transcripts": "verbatim", **source})
    return [(g.prompt.content, g.completions[0].content) for g in data.groups], data.skipped


@pytest.mark.parametrize("seed", range(40))
def test_a_table_gives_its_cells(tmp_path, seed):
    r = random.Random(f"table {seed}")
    rows, out = pairs(r), io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=r.choice(("\n", "\r\n")), quoting=csv.QUOTE_ALL if seed % 2 else csv.QUOTE_MINIMAL)
    writer.writerows([("prompt", "completion"), *rows])
    encoding = r.choice(("utf-8", "utf-8-sig", "utf-16", "utf-32"))
    (tmp_path / "rows.csv").write_bytes(out.getvalue().encode(encoding))
    assert found(tmp_path / "rows.csv", encoding=encoding.removesuffix("-sig")) == (rows, ())


@pytest.mark.parametrize("seed", range(40))
def test_every_line_is_a_row_or_counted(tmp_path, seed):
    r, lines, good = random.Random(f"lines {seed}"), [], []
    for pair in [*pairs(r), *pairs(r)]:
        kind = r.randrange(4)
        row = {"prompt": pair[0], "completion": pair[1]}
        if kind == 0:
            lines.append(r.choice(("", " ", "\t")))
        elif kind == 1:
            lines.append(json.dumps({**row, r.choice(("prompt", "completion")): r.choice((None, 3, [], "\ud800", {}))}))
        elif kind == 2:
            text = json.dumps(row)
            at = r.randrange(1, len(text) - 1)
            lines.append(text[:at] + "\x01" + text[at:])
        else:
            lines.append(json.dumps(row, ensure_ascii=r.random() < 0.5))
            good.append(pair)
    data = r.choice(("\n", "\r\n")).join(lines).encode()
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" * (seed % 2) + data)
    count = sum(bool(line.strip()) for line in lines)
    assert sum(1 for _ in read_rows(tmp_path / "rows.jsonl")) == count
    if good:
        read, skipped = found(tmp_path / "rows.jsonl")
        assert read == good
        assert len(skipped) == count - len(good)


TYPES = {
    pa.string(): ["a", None, ""], pa.binary(): [b"\xff", None, b""], pa.float16(): [None, None, None],
    pa.date32(): [datetime.date(1, 1, 1), None, datetime.date(9999, 12, 31)], pa.timestamp("ns"): [0, None, 1],
    pa.timestamp("s", "Mars/Base"): [0, None, 1], pa.duration("us"): [1, None, 2], pa.null(): [None] * 3,
    pa.list_(pa.struct([("role", pa.string()), ("calls", pa.null())])): [[None], None, [{"role": None, "calls": None}]],
    pa.map_(pa.string(), pa.int8()): [[("k", 1)], None, []], pa.dictionary(pa.int8(), pa.string()): ["u", None, "u"],
    pa.decimal128(9, 2): [None, None, None],
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_a_column_of_any_type_costs_its_own_rows_at_most(tmp_path, kind, size):
    table = pa.table(
        {"prompt": ["p", "q", "r"], "completion": pa.array(["a", "b", "a"]).dictionary_encode(), "x": pa.array(TYPES[kind], kind)}
    )
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=size)
    read, skipped = found(tmp_path / "rows.parquet")
    assert len(read) + len(skipped) == 3
    assert ("q", "b") in read, "a value that is not there spoils nothing"
    assert len(found(tmp_path / "rows.parquet", keep=[])[0]) == (1 if "Mars" in str(kind) else 3)
