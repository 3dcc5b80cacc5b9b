"""Broken inputs: each must be caught, and the message must name file, line, field, the finding and a way out."""

import json

import pytest

from evenhand.data.load import load
from evenhand.errors import UserError

PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
TURNS = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
RANKED = {"prompt": "q", "completions": ["a", "b"], "scores": [1, 2]}
LABEL = {"prompt": "q", "completion": "a", "label": True}
IMPLICIT = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}
WORDS = {"chosen": "the cat sat", "rejected": "the cat ran"}
ALPACA = {"instruction": "do", "output": "a"}
SHARE = {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": "b"}


def turns(*pairs):
    return {"messages": [{"role": r, "content": c} for r, c in pairs]}


BROKEN = [
    # good rows like this, the bad third row, field named, words of the finding
    (PAIR, {"prompt": "q", "chosen": "a"}, "rejected", "is missing"),
    (PAIR, {**PAIR, "chosen": None}, "chosen", "is null"),
    (PAIR, {**PAIR, "chosen": "  \n"}, "chosen", "is empty"),
    (PAIR, {**PAIR, "prompt": ""}, "prompt", "is empty"),
    (PAIR, {**PAIR, "prompt": 3}, "prompt", "found 3 (int)"),
    (PAIR, {**PAIR, "rejected": []}, "rejected", "an empty list"),
    (PAIR, {**PAIR, "rejected": [{"role": "user", "content": "b"}]}, "prompt", "is no turn that chosen and rejected share"),
    (PAIR, {**PAIR, "prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "user", "content": "b"}]}, "chosen",
     "expected the assistant's answer"),
    (PAIR, {**PAIR, "chosen_score": 1, "rejected_score": 2}, "chosen_score", "is not above"),
    (PAIR, {**PAIR, "chosen_score": 2, "rejected_score": 2.0}, "chosen_score", "is not above"),
    (PAIR, {**PAIR, "chosen_score": "high", "rejected_score": 2}, "chosen_score", "expected a number, found 'high'"),
    (PAIR, {**PAIR, "chosen_score": float("nan"), "rejected_score": 2}, "chosen_score", "expected a finite number"),
    (PAIR, {**PAIR, "prompt": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r"}, "prompt", "does not end with an open 'Assistant:'"),
    (IMPLICIT, {**IMPLICIT, "rejected": "\n\nHuman: q\n\nAssistant: "}, "rejected", "turn 1 of 1 (assistant) is empty"),
    (IMPLICIT, {**IMPLICIT, "rejected": "\n\nHuman: other\n\nAssistant: b"}, "rejected", "shares no first turn"),
    (IMPLICIT, {**IMPLICIT, "rejected": [{"role": "assistant", "content": "b"}]}, "rejected", "differ in form"),
    (IMPLICIT, {"chosen": "\n\nHuman: \n\nAssistant: a", "rejected": "\n\nHuman: \n\nAssistant: b"}, "chosen",
     "turn 1 of 1 (user) is empty"),
    (WORDS, {"chosen": "the cat sat", "rejected": "a dog"}, "rejected", "shares no first word"),
    (WORDS, {"chosen": "the cat", "rejected": "the cat"}, "rejected", "is the same text as chosen"),
    (WORDS, {"chosen": "the cat", "rejected": "the cat ran"}, "chosen", "is nothing but the prompt"),
    (TURNS, {"messages": "q"}, "messages", "expected text or a list of messages"),
    (TURNS, {"messages": ["q", "a"]}, "messages", "message 1: expected an object with role and content"),
    (TURNS, {"messages": [{"content": "q"}]}, "messages", "message 1 has no role"),
    (TURNS, turns(("user", "q"), ("asistant", "a")), "messages", "message 2 has the unknown role 'asistant'"),
    (TURNS, turns(("user", "q"), ("assistant", None)), "messages", "message 2: expected text, found None"),
    (TURNS, turns(("user", ""), ("assistant", "a")), "messages", "message 1 (user) is empty"),
    (TURNS, turns(("user", "q")), "messages", "ends with a turn of the user"),
    (TURNS, turns(("assistant", "a")), "messages", "nothing before it"),
    (turns(("user", "q")), TURNS, "messages", "ends with an answer, but the others are prompts"),
    (RANKED, {**RANKED, "scores": [1]}, "scores", "1 values for 2 completions"),
    (RANKED, {**RANKED, "scores": [1, "x"]}, "scores", "expected a number, found 'x'"),
    (RANKED, {**RANKED, "scores": [1, True]}, "scores", "expected a number, found True"),
    (RANKED, {**RANKED, "completions": ["a", " "]}, "completions", "answer 2 is empty"),
    (RANKED, {**RANKED, "completions": "a"}, "completions", "expected a list, found 'a'"),
    (RANKED, {**RANKED, "completions": []}, "completions", "is an empty list"),
    (LABEL, {**LABEL, "label": 2}, "label", "expected true or false (or 1 or 0, or 1 or -1), found 2"),
    (LABEL, {**LABEL, "label": "good"}, "label", "found 'good'"),
    (LABEL, {**LABEL, "label": None}, "label", "is null"),
    (ALPACA, {**ALPACA, "output": ""}, "output", "is empty"),
    (ALPACA, {**ALPACA, "history": [["q"]]}, "history", "expected [[question, answer], ...]"),
    (SHARE, {**SHARE, "chosen": {"from": "gtp", "value": "a"}}, "chosen", "message 1 has the unknown role 'gtp'"),
    ({"turns": ["a"]}, {"turns": [3]}, "turns", "a list of questions"),
    ({"instruction": "do", "instances": [{"output": "a"}]}, {"instruction": "do", "instances": [{"input": "x"}]}, "instances",
     "instance 1 has no output"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "field", "finding"), BROKEN)
def test_a_bad_row_is_named_by_file_line_and_field(tmp_path, good, bad, field, finding):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [good, good, bad, good, good]))
    with pytest.raises(UserError) as error:
        load(str(path))
    assert error.value.where == f"rows.jsonl:3, field '{field}'"
    assert finding in error.value.what
    assert "on_bad_row: skip" in error.value.fix
    skipped = load({"path": str(path), "on_bad_row": "skip"})
    assert len(skipped.groups) == 4
    assert len(skipped.skipped) == 1
    assert skipped.skipped[0].startswith("rows.jsonl:3")
    assert "4 rows" in skipped.description
    assert "1 bad rows skipped" in skipped.description


def test_all_bad_rows_are_counted_in_one_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [PAIR, {**PAIR, "chosen": ""}, PAIR, {**PAIR, "prompt": 1}, PAIR]))
    with pytest.raises(UserError, match=r"rows\.jsonl:2, field 'chosen': is empty") as error:
        load(str(path))
    assert "2 of 5 rows are bad; the next: rows.jsonl:4" in error.value.why


def test_a_renamed_field_is_named_by_its_column(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"q": "x", "a": "y"}) + "\n" + json.dumps({"q": "", "a": "y"}) + "\n")
    with pytest.raises(UserError, match=r"rows\.jsonl:2, field 'q' \(used as prompt\): is empty"):
        load({"path": str(path), "columns": {"prompt": "q", "completion": "a"}})


FILES = [
    # file name, bytes, where, words of the finding, words of the fix
    ("a.jsonl", b'{"prompt": "q"}\n{"prompt": \n', "a.jsonl:2", "not valid JSON at column", "one JSON object"),
    ("a.jsonl", b'{"prompt": "q"}\n[1, 2]\n', "a.jsonl:2", "expected an object with named fields", ""),
    ("a.jsonl", b'{"prompt": "q"}\n\n{"prompt": "caf\xe9"}\n', "a.jsonl:3", "byte 0xe9 at position 16 is not utf-8", "encoding"),
    ("a.jsonl", b"", "data", "holds no usable rows", ""),
    ("a.jsonl.gz", b"not gzip", "a.jsonl.gz", "not a gzip file", ""),
    ("a.json", b'[{"prompt": "q"},]', "a.json:1", "not valid JSON", ""),
    ("a.json", b'{"prompt": "q"}\n{"prompt": "q"}\n', "a.json:2", "not valid JSON", "file_type: jsonl"),
    ("a.json", b'{"train": [{"prompt": "q"}]}', "a.json", "found an object with train", "field: NAME"),
    ("a.json", b'[{"prompt": "q"}, "x"]', "a.json[1]", "expected an object", ""),
    ("a.csv", b"prompt,completion\nq,a\nq,a,b\n", "a.csv:3", "3 cells where the header names 2", "double quotes"),
    ("a.csv", b"", "a.csv", "the file is empty", "name the columns"),
    ("a.csv", b'prompt,completion\n"two\nlines",a\nq,\n', "a.csv:4, field 'completion'", "is null", ""),
    ("a.csv", b'prompt,completion\nq,a\n"two\nlines",\n', "a.csv:3, field 'completion'", "is null", ""),
    ("a.csv", b"prompt,completion\nq,\n", "a.csv", "column 'completion' is empty", "format: prompt"),
    ("a.csv", b"prompt,completion\nq,caf\xe9\n", "a.csv:2", "byte 0xe9", "latin-1"),
    ("a.parquet", b"not parquet", "a.parquet", "not a Parquet file", ""),
    ("a.xyz", b"", "a.xyz", "does not say what kind of file", "file_type"),
    ("a.txt", b"one\n\ntwo caf\xe9\n", "a.txt:3", "byte 0xe9 at position 8", "latin-1"),
]


@pytest.mark.parametrize(("name", "content", "where", "finding", "fix"), FILES)
def test_a_broken_file_is_named(tmp_path, name, content, where, finding, fix):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        load(str(tmp_path / name))
    assert where in error.value.where
    assert finding in error.value.what
    assert fix in error.value.fix


CONFIG = [
    ({}, "exactly one of path and name", ""),
    ({"path": "a.jsonl", "name": "org/x"}, "exactly one of path and name", ""),
    ({"path": "a.jsonl", "limt": 3}, "unknown key 'limt'", "'limit'"),
    ({"path": "a.jsonl", "limit": "3"}, "expected a whole number, found '3'", ""),
    ({"path": "a.jsonl", "limit": True}, "expected a whole number, found True", ""),
    ({"path": "a.jsonl", "limit": 0}, "0 groups are no data", ""),
    ({"path": "a.jsonl", "on_bad_row": "ignore"}, "unknown value 'ignore'", "'skip'"),
    ({"path": "a.jsonl", "use": "promts"}, "unknown value 'promts'", "'prompts'"),
    ({"path": "a.jsonl", "format": "mesages"}, "unknown value 'mesages'", "'messages'"),
    ({"path": "a.jsonl", "columns": ["prompt"]}, "expected a mapping", ""),
    ({"path": "a.jsonl", "columns": {"prompt": "promt"}}, "no column 'promt'", "'prompt'"),
    ({"path": "a.jsonl", "wrap": "Q:"}, "no {prompt} in it", ""),
    ({"path": "b.jsonl"}, "no such file: b.jsonl", "a.jsonl"),
    ({"path": ["a.jsonl", "b.jsonl"]}, "no such file: b.jsonl", ""),
    ({"path": 3}, "expected a path or a list of paths", ""),
    ({"path": "a.jsonl", "encoding": 8}, "expected text, found 8", ""),
    ({"path": "a.jsonl", "use": "pairs"}, "no pairs can be made of these 1 groups", ""),
    ({"path": "a.txt", "opening_words": 2, "opening_sentences": 1}, "both given", ""),
    ({"path": "a.txt", "opening_words": 50}, "no document is long enough", ""),
    ({"path": "."}, "not one that datasets.save_to_disk wrote", ""),
]


@pytest.mark.parametrize(("source", "finding", "fix"), CONFIG)
def test_a_wrong_source_is_refused_before_or_while_reading(tmp_path, monkeypatch, source, finding, fix):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"prompt": "q"}\n')
    (tmp_path / "a.txt").write_text("some words here")
    with pytest.raises(UserError) as error:
        load(source, where="train")
    assert finding in error.value.what
    assert fix in error.value.fix
