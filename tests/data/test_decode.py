"""Bytes and JSON that are not what they should be: said with file, line and a way out; encodings of wide characters."""

import datetime
import decimal
import gzip
import json

import pytest

from evenhand.data.jsonl import read_groups, write_groups
from evenhand.data.load import load
from evenhand.errors import UserError

PAIR = '{"prompt": "q", "chosen": "a", "rejected": "b"}'
ROWS = f"{PAIR}\n{PAIR}\n"


def refused(tmp_path, name, data, **options) -> UserError:
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(UserError) as error:
        load({"path": str(path), **options})
    return error.value


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"])
def test_a_named_encoding_is_read_line_by_line(tmp_path, encoding):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        PAIR.replace("q", "\u00e9\u00ca").encode(encoding) + f"\n{PAIR}\n".encode(encoding).removeprefix("".encode(encoding))
    )
    assert [g.prompt.content for g in load({"path": str(path), "encoding": encoding}).groups] == ["\u00e9\u00ca", "q"]


@pytest.mark.parametrize("ending", ["csv", "txt"])
def test_other_files_of_wide_characters(tmp_path, ending):
    text = "prompt,completion\nq,a\u010a\n" if ending == "csv" else "One two \u010a.\n\nThree."  # 0x0a is one of its bytes
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(text.encode("utf-16"))
    last = load({"path": str(path), "encoding": "utf-16"}).groups[0].completions[0].content
    assert last == ("a\u010a" if ending == "csv" else "One two \u010a.")


def test_the_first_bytes_of_utf16_are_recognised_in_the_message(tmp_path):
    error = refused(tmp_path, "rows.jsonl", ROWS.encode("utf-16"))
    assert error.where == "rows.jsonl:1"
    assert "encoding: utf-16" in error.fix


@pytest.mark.parametrize("name", ["utf8x", "base64"])
def test_an_encoding_that_is_none(tmp_path, name):
    error = refused(tmp_path, "rows.jsonl", ROWS, encoding=name)
    assert error.where == "data.encoding"
    assert name in error.what


@pytest.mark.parametrize(
    ("name", "data", "where", "what"),
    [
        ("rows.jsonl", PAIR + '\n{"prompt": "q", "prompt": "r", "completion": "a"}', "rows.jsonl:2", "'prompt' stands twice"),
        ("rows.json", '[{"prompt": "q", "m": {"k": 1, "k": 1}}]', "rows.json", "'k' stands twice"),
        ("rows.csv", "prompt,chosen,chosen\nq,a,b\n", "rows.csv:1", "two columns are named 'chosen'"),
        ("rows.csv", "prompt;completion\nq;a\n", "rows.csv:1", "separated by ';'"),
        ("rows.jsonl", PAIR + "\n" + "[" * 100_000, "rows.jsonl:2", "within one another"),
        ("rows.json", "[" * 100_000, "rows.json", "within one another"),
        ("rows.jsonl", '{"prompt": "q", "n": ' + "9" * 5000 + "}", "rows.jsonl:1", "thousands of digits"),
        (
            "rows.jsonl",
            '{"prompt": "q\\ud800", "completion": "a"}',
            "rows.jsonl:1, field 'prompt'",
            "half of a character, \\ud800",
        ),
        ("rows.jsonl", '{"prompt": "q", "completion": "a", "of": Infinity}', "rows.jsonl:1, field 'of'", "is infinite"),
    ],
)
def test_what_no_reader_should_decide(tmp_path, name, data, where, what):
    error = refused(tmp_path, name, data)
    assert error.where == where
    assert what in error.what
    assert error.fix


def test_a_cell_in_brackets_that_is_no_json_stays_text(tmp_path):
    path = tmp_path / "rows.csv"
    cells = ["[sic]", "[" + "9" * 5000 + "]", "[" * 50_000 + "]" * 50_000]
    path.write_text("prompt,completion\n" + "".join(f"q,{cell}\n" for cell in cells))
    assert [g.completions[0].content for g in load(str(path)).groups] == cells


def test_an_ending_in_capitals_is_the_same_ending(tmp_path):
    path = tmp_path / "rows.JSONL.GZ"
    path.write_bytes(gzip.compress(ROWS.encode()))
    assert len(load(str(path))) == 2


def parquet(tmp_path, **columns):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["q"], "completion": ["a"], **columns}), path)
    return path


def test_columns_beside_the_format_become_json_and_come_back(tmp_path):
    day, moment = datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 12, 30)
    path = parquet(
        tmp_path, day=[day], at=[moment], price=[decimal.Decimal("1.5")], none=[float("nan")], many=[[1.0, float("nan")]]
    )
    groups = load(str(path)).groups
    wanted = {"day": "2024-02-29", "at": "2024-02-29T12:30:00", "price": 1.5, "many": [1.0, None]}
    assert groups[0].prompt.meta == wanted
    write_groups(tmp_path / "groups.jsonl", groups)
    assert read_groups(tmp_path / "groups.jsonl")[0].prompt.meta == wanted


def test_bytes_are_no_json_and_can_be_left_out(tmp_path):
    path = parquet(tmp_path, image=[b"\xff"], topic=["x"])
    with pytest.raises(UserError, match=r"rows\.parquet\[0\], field 'image': holds bytes") as error:
        load(str(path))
    assert "keep:" in error.value.fix
    assert load({"path": str(path), "keep": ["topic"]}).groups[0].prompt.meta == {"topic": "x"}


def test_a_damaged_folder_of_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([json.loads(PAIR)]).save_to_disk(str(tmp_path / "rows"))
    (arrow,) = (tmp_path / "rows").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:50])
    with pytest.raises(UserError, match="the folder is damaged"):
        load(str(tmp_path / "rows"))
