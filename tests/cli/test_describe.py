"""`evenhand data describe` on several sources: the table, the CSV, the figure, and files that hold no training data."""

from __future__ import annotations

import csv
import gzip
import json

import pytest


@pytest.fixture
def files(tmp_path):
    pairs = [{"prompt": "one two", "chosen": " a b c", "rejected": " a"}, {"prompt": "one", "chosen": " a", "rejected": " a b"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*pairs, {"prompt": "x", "chosen": 3}]))
    (tmp_path / "qa.jsonl").write_text(json.dumps({"question": "why is that?", "answer": "because"}) + "\n")
    return tmp_path


def test_a_table_a_csv_and_a_figure_of_several(cli, files):
    made = ("--csv", files / "out" / "t.csv", "--plot", files / "out" / "t.svg")
    code, out, err = cli("data", "describe", files / "pairs.jsonl", files / "qa.jsonl", *made)
    assert code == 0, err
    assert "  bad row: pairs.jsonl:3, field 'chosen': " in out
    header, *lines = (line.split("  ") for line in out[out.index("Dataset") :].splitlines()[:3])
    assert [h.strip() for h in header if h.strip()][-2:] == ["Annotator", "#Pairs"]
    assert [c.strip() for c in lines[0] if c.strip()] == ["pairs.jsonl", "2", "1.5", "2.0", "1.5", "-", "-", "2"]
    assert [c.strip() for c in lines[1] if c.strip()] == ["qa.jsonl", "1", "3.0", "-", "-", "-", "-", "0"]
    rows = list(csv.DictReader((files / "out" / "t.csv").open()))
    assert [(r["source"], r["pairs"], r["preferred_length"]) for r in rows] == [
        ("pairs.jsonl", "2", "2.0"),
        ("qa.jsonl", "0", ""),
    ]
    figure = (files / "out" / "t.svg").read_text()
    assert all(
        text in figure for text in ("pairs.jsonl", "2 pairs", "qa.jsonl", "1 rows", "rejected answer", "mean length in words")
    )
    code, _, err = cli("data", "describe", files / "qa.jsonl", "--plot", files / "t.gif")
    assert code == 2
    assert "use .svg, .png or .pdf" in err


def test_a_recipe_says_who_wrote_and_who_compared(cli, files):
    (files / "hh.jsonl").write_text(
        json.dumps({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}) + "\n"
    )
    code, out, err = cli("data", "describe", f"{{recipe: hh_rlhf, path: {files / 'hh.jsonl'}}}", files / "qa.jsonl")
    assert code == 0, err
    (line,) = (line for line in out.splitlines() if line.startswith("hh_rlhf "))
    assert line.split() == ["hh_rlhf", "1", "1.0", "1.0", "1.0", "LLM", "Human", "1"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("answers.jsonl", '{"question_id": 1, "model_id": "m", "choices": []}\n', "MT-Bench answers, 1 rows"),
        ("numbers.csv", "index,difficulty\n0,1.5\n1,-2\n", "a table of numbers, 2 x 2, columns: index, difficulty"),
        (
            "results.json",
            '{"a": {"wins": [1, 2, 3]}, "b": {"wins": [1]}}',
            "results by name, 2 names (a, b, ...), fields: wins, up to 3",
        ),
    ],
)
def test_files_without_training_data_are_named(cli, tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    code, out, err = cli("data", "describe", tmp_path / name)
    assert code == 0, err
    assert said in out
    assert "no training data" in out
    code, _, err = cli("data", "describe", tmp_path / name, "--csv", tmp_path / "t.csv")
    assert code == 2
    assert "no source holds training data" in err


def test_an_unknown_kind_of_file_is_still_an_error(cli, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"colour": 1}\n')
    code, _, err = cli("data", "describe", tmp_path / "x.jsonl")
    assert code == 2
    assert "no known format" in err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("films.pos", "caf\xe9 good\nfine\n".encode("latin-1"), "2 documents, separated by '\\n'"),
        ("rows.data", b'{"question": "q", "answer": "a"}\n', "demonstrations, prompt explicit"),
        ("latin.txt", "caf\xe9\n\nol\xe9\n".encode("latin-1"), "2 documents, separated by 'blank line'"),
    ],
)
def test_an_ending_or_an_encoding_is_guessed_and_said(cli, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    code, out, err = cli("data", "describe", tmp_path / name)
    assert code == 0, err
    assert ": read as {path: " in out
    assert said in out


def test_unscored_answers_are_not_the_worst(cli, tmp_path):
    row = {"prompt": "p", "completions": ["a", "b c", "d e f"], "scores": [1.0, 2.0, None]}
    (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    _, out, _ = cli("data", "describe", tmp_path / "r.jsonl")
    assert "the better answer is longer in 100.0%, equal to the worse in 0 of 1" in out


def test_every_real_file_is_recognised(cli, real_data):
    files = sorted(p for p in (real_data / "data").rglob("*") if p.is_file() and p.name != "README.md" and p.suffix != ".txt")
    code, out, err = cli("data", "describe", *files)
    assert code == 0, err
    named = [p.name for p in files if f"{p.name}: " in out]
    assert named == [p.name for p in files]
    assert out.count("no training data") == 4
    with gzip.open(real_data / "data/pref/tulu_13b_11_samples_scored.jsonl.gz", "rt") as lines:
        scores = [json.loads(line)["scores"] for line in lines]
    pairs = sum(a < b for row in scores for a in row for b in row if a is not None and b is not None)
    assert f" {pairs}\n" in out[out.index("tulu_13b_11_samples_scored.jsonl.gz  ") :]
