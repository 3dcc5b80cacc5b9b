"""Files made to fill the memory, never to end, or to break one reader for all rows: one message each."""

import gzip
import json
import os

import pytest

from evenhand.data import readers
from evenhand.data.decode import decode_line
from evenhand.data.files import local_files
from evenhand.data.jsonl import read_groups
from evenhand.data.load import load
from evenhand.data.sniff import guessed
from evenhand.errors import UserError

GOOD = '{"prompt": "q", "completion": "a"}'
CANONICAL = {"prompt": "q", "id": "x", "meta": {}, "completions": [{"content": "a"}], "scores": [1.0], "parts": {}}


def written(folder, *lines, name="rows.jsonl"):
    path = folder / name
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return path


BAD_LINES = [
    (b'{"prompt": ', "not valid JSON"),
    (b"[1, 2]", "expected an object"),
    (b'{"prompt": "caf\xe9", "completion": "a"}', "byte 0xe9"),
    (b'{"prompt": ' + b"9" * 5000 + b', "completion": "a"}', "thousands of digits"),
    (b'{"prompt": "q", "prompt": "r", "completion": "a"}', "the name 'prompt' stands twice"),
    (b'{"prompt": "q", "completion": "a", "x": ' + b"[" * 101 + b"]" * 101 + b"}", "more than 100 deep"),
    (b'{"prompt": "q", "completion": "a", "x": ' + b"[" * 100000 + b"]" * 100000 + b"}", "more than 100 deep"),
    (b'{"prompt": "q", "completion": "a\\ud800"}', "half of a character"),
    (b'{"prompt": "q", "completion": "a", "x": 1e999}', "is infinite"),
    (b'{"prompt": "q", "completion": null}', "is null"),
]


@pytest.mark.parametrize(("line", "what"), BAD_LINES, ids=[what for _, what in BAD_LINES])
@pytest.mark.parametrize("place", [0, 2], ids=["first", "third"])
def test_one_bad_line_spoils_one_row(tmp_path, line, what, place):
    lines = [GOOD] * 4
    lines[place] = line
    path = written(tmp_path, *lines)
    with pytest.raises(UserError) as error:
        load(str(path))
    assert what in error.value.what
    assert error.value.where.startswith(f"rows.jsonl:{place + 1}")
    assert "on_bad_row: skip" in error.value.fix
    left = load({"path": str(path), "on_bad_row": "skip"})
    assert len(left.groups) == 3
    assert len(left.skipped) == 1


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, "1e400", "NaN"])
def test_scores_that_no_float_holds(tmp_path, number):
    rows = [f'{{"prompt": "q", "completions": ["a", "b"], "scores": [{number if i else 1}, 0]}}' for i in range(2)]
    path = written(tmp_path, *rows)
    with pytest.raises(UserError, match=r"rows.jsonl:2, field 'scores': expected a (finite )?number"):
        load(str(path))
    assert len(load({"path": str(path), "on_bad_row": "skip"}).groups) == 1


def test_a_table_loses_the_rows_that_cannot_be_decoded_or_cut(tmp_path):
    path = written(tmp_path, "prompt,completion", "q,a", b'"caf\xe9', b'two",b', "q,a,b", "r,c", name="rows.csv")
    left = load({"path": str(path), "on_bad_row": "skip"})
    assert [(g.prompt.text, g.completions[0].text) for g in left.groups] == [("q", "a"), ("r", "c")]
    assert [line.split(":")[1].split(",")[0] for line in left.skipped] == ["3", "5"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv.gz"])
@pytest.mark.parametrize(("first", "read"), [(b"caf\xe9", 1), (b"prompt", 65)])
def test_a_table_of_lines_that_cannot_be_decoded_is_read_no_further_than_asked(tmp_path, monkeypatch, name, first, read):
    """No usable row among the first 64: nobody decodes the other 100,000, packed into a kilobyte."""
    data = first + b"\n" + b"\xe9\n" * 100_000
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    decoded = []
    monkeypatch.setattr(readers, "decode_line", lambda line, *rest: decoded.append(line) or decode_line(line, *rest))
    with pytest.raises(UserError, match="byte 0xe9 at position"):
        load({"path": str(tmp_path / name), "on_bad_row": "skip"})
    assert len(decoded) <= 2 * read, "the format is found in a first look, the rows are read in a second"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_of_any_line_ends_is_one_table(tmp_path, end, encoding):
    """Line breaks inside of quotes are the cell's own, in every one of them."""
    text = end.join(["prompt,completion", f'"q{end}r",a', "s,b", ""])
    (tmp_path / "rows.csv").write_bytes(text.encode(encoding))
    found = load({"path": str(tmp_path / "rows.csv"), "encoding": encoding.replace("-sig", "")}).groups
    assert [(g.prompt.content, g.completions[0].content) for g in found] == [(f"q{end}r", "a"), ("s", "b")]


@pytest.mark.parametrize("line", ['p,"open', '"p,a'])
def test_a_quote_that_is_never_closed_takes_no_rows_with_it_unsaid(tmp_path, line):
    path = written(tmp_path, "prompt,completion", "x,y", line, "x2,y2", "x3,y3", name="rows.csv")
    with pytest.raises(UserError, match="a quote is opened here and never closed") as error:
        load(str(path))
    assert error.value.where == "rows.csv:3"
    left = load({"path": str(path), "on_bad_row": "skip"})
    assert (len(left), len(left.skipped)) == (1, 1)


def test_a_header_whose_quote_is_never_closed(tmp_path):
    with pytest.raises(UserError, match="never closed"):
        load(str(written(tmp_path, 'prompt,"completion', "x,y", name="rows.csv")))


def test_a_table_may_end_behind_a_quote_without_a_line_end(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b'prompt,completion\nx,"a\nb"')
    assert load(str(tmp_path / "rows.csv")).groups[0].completions[0].text == "a\nb"


def test_values_of_two_columns_without_a_name_are_not_lost(tmp_path):
    path = written(tmp_path, "prompt,completion,,", "q,a,,", "r,b,x,", "s,c,x,y", name="rows.csv")
    with pytest.raises(UserError, match="values in several columns that have no name") as error:
        load(str(path))
    assert error.value.where == "rows.csv:4"


def test_a_list_loses_what_is_no_object(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(f"[{GOOD}, 3, {GOOD}]")
    assert len(load({"path": str(path), "on_bad_row": "skip"}).groups) == 2


def test_parquet_rows_with_values_that_python_has_not(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    days = pa.array([0, 2**31 - 1, 1], pa.int32()).cast(pa.date32())
    text = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"ab\xff"))
    table = pa.table({"prompt": ["q", "q", "q"], "completion": text, "day": days})
    parquet.write_table(table, tmp_path / "rows.parquet")
    left = load({"path": str(tmp_path / "rows.parquet"), "on_bad_row": "skip"})
    assert [g.completions[0].text for g in left.groups] == ["a"]
    assert [line.split(":")[0] for line in left.skipped] == ["rows.parquet[1]", "rows.parquet[2]"]


# files that fill the memory or never end --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.json.gz", "bomb.csv.gz", "bomb.txt.gz"])
def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path, name):
    path = tmp_path / name
    with gzip.open(path, "wb", 1) as out:
        for _ in range(66):
            out.write(b" " * (1 << 20))
    with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
        load(str(path))
    with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
        load({"path": str(path), "on_bad_row": "skip"})


def test_well_packed_rows_are_read(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress((GOOD + "\n").encode() * 3000, 9))
    assert len(load(str(path)).groups) == 3000


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv", "p.parquet", "p.txt"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    for reading in (lambda: load(str(path)), lambda: read_groups(path), lambda: local_files({"path": str(path)})):
        with pytest.raises(UserError, match="a pipe or a device"):
            reading()
    assert guessed(path) == ({"path": str(path)}, "")


def test_devices_are_refused():
    with pytest.raises(UserError, match="a pipe or a device"):
        load({"path": "/dev/zero", "file_type": "jsonl"})


def test_a_thousand_columns_and_a_name_of_a_million_letters_make_one_short_message(tmp_path):
    many = written(tmp_path, json.dumps({f"column_{i}": i for i in range(20000)}))
    long = written(tmp_path, json.dumps({"prompt" * 200000: 1}), name="long.jsonl")
    for path in (many, long):
        with pytest.raises(UserError, match="no known format") as error:
            load(str(path))
        assert len(str(error.value)) < 2000


# canonical rows ---------------------------------------------------------------------------------------------------------

WRONG = [
    ({"prompt": 3}, "prompt"),
    ({"prompt": [{"role": "user"}]}, "prompt[0].content"),
    ({"prompt": [{"role": 3, "content": "q"}]}, "prompt[0].role"),
    ({"prompt": ["q"]}, "prompt[0]"),
    ({"prompt": []}, "prompt"),
    ({"completions": [{"content": []}]}, "completions[0].content"),
    ({"prompt": [{"role": "user", "content": "q", "train": 0}]}, "prompt[0].train"),
    ({"prompt": [{"role": "user", "content": "q", "extra": {"tool_calls": ["f"]}}]}, "prompt[0].extra.tool_calls"),
    ({"prompt": [{"role": "user", "content": "q", "extra": {"reasoning_content": 3}}]}, "prompt[0].extra.reasoning_content"),
    ({"id": 3}, "id"),
    ({"meta": []}, "meta"),
    ({"options": 3}, "options"),
    ({"completions": {"content": "a"}}, "completions"),
    ({"completions": ["a"]}, "completions[0]"),
    ({"completions": [{"content": "a", "tokens": "12"}]}, "completions[0].tokens"),
    ({"completions": [{"content": "a", "tokens": [1.5]}]}, "completions[0].tokens"),
    ({"completions": [{"content": "a", "tokens": [-1]}]}, "completions[0].tokens"),
    ({"completions": [{"content": "a", "tokens": [True]}]}, "completions[0].tokens"),
    ({"completions": [{"content": "a", "tokens": [1], "behaviour_logp": []}]}, "completions[0].behaviour_logp"),
    ({"completions": [{"content": "a", "finish": "maybe"}]}, "completions[0].finish"),
    ({"completions": [{"content": "a", "finish": ["stop"]}]}, "completions[0].finish"),
    ({"scores": "1"}, "scores"),
    ({"scores": [True]}, "scores"),
    ({"scores": ["high"]}, "scores"),
    ({"scores": [10**400]}, "scores"),
    ({"scores": [1, 2]}, "completions"),
    ({"parts": {"p": 1}}, "parts.p"),
    ({"parts": []}, "parts"),
    ({"policy_version": "3"}, "policy_version"),
    ({"policy_version": True}, "policy_version"),
]


@pytest.mark.parametrize(("change", "key"), WRONG, ids=[key for _, key in WRONG])
def test_a_canonical_row_of_wrong_types_is_named_by_line_and_key(tmp_path, change, key):
    path = written(tmp_path, json.dumps(CANONICAL), json.dumps({**CANONICAL, **change}), json.dumps(CANONICAL))
    with pytest.raises(UserError) as error:
        read_groups(path)
    assert error.value.where == "rows.jsonl:2"
    assert f"'{key}'" in error.value.what
    with pytest.raises(UserError) as error:
        load({"path": str(path), "format": "evenhand"})
    assert error.value.where == f"rows.jsonl:2, field '{key}'"
    assert len(load({"path": str(path), "format": "evenhand", "on_bad_row": "skip"}).groups) == 2
