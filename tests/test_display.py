"""What models, data and errors say is shown, and does nothing to the terminal, the spreadsheet or the log it is shown in."""

from __future__ import annotations

import csv
import io

import pytest

from evenhand.display import csv_cell, hidden, shown, spelled_out
from evenhand.errors import UserError, did_you_mean
from evenhand.report.figures import csv_text
from evenhand.runner.worker_protocol import one_line

STEERS = "\x1b[2J\x1b]0;title\x07\x9b1m\r\x08\u202eabc\u2066\u200f\ufeff\x00\x7f"


def steers(text):
    return [c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c in "\u202e\u2066\u200f\ufeff"]


def test_what_steers_a_terminal_is_spelled_out_and_nothing_else_changes():
    assert steers(spelled_out(STEERS)) == []
    assert spelled_out(STEERS).startswith(r"\x1b[2J\x1b]0;title\x07\x9b1m\x0d\x08\u202eabc")
    plain = "Grüße, 你好, नमस्ते, 👩‍👩‍👧\n\tindented \\x1b"
    assert spelled_out(plain) == plain
    assert spelled_out("a\ud800b") == "a\\ud800b"


def test_errors_quote_without_steering():
    assert steers(str(UserError(f"bad {STEERS}", where=STEERS, why=STEERS, fix=STEERS))) == []
    assert steers(one_line(ValueError(STEERS))) == []


def test_secrets_of_the_environment_are_struck_out(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "sk-0123456789")
    monkeypatch.setenv("A_KEY", "/a/path/of/a/key")
    monkeypatch.setenv("B_TOKEN", "short")
    text = shown("key sk-0123456789, cut sk-0123456, path /a/path/of/a/key, short")
    assert text == "key ***, cut ***, path /a/path/of/a/key, short"
    assert one_line(RuntimeError("refused sk-0123456789")) == "RuntimeError: refused ***"
    assert hidden("a%2Bb%2Fcdefghij and a+b/cdefghij", ["a+b/cdefghij"]) == "*** and ***"


@pytest.mark.parametrize("cell", ["=HYPERLINK(1)", "+1", "-1+2", "@SUM(1)", "\tx"])
def test_cells_that_begin_like_formulas_are_quoted(cell):
    assert csv_cell(cell) == f"'{cell}"
    rows = list(csv.reader(io.StringIO(csv_text(["arm", cell], [[cell, -0.5], [None, "x"]]))))
    assert rows == [["arm", f"'{cell}"], [f"'{cell}", "-0.5"], ["", "x"]]


def test_a_hint_for_a_long_word_comes_at_once():
    assert "steps" in did_you_mean("stepss" + " " * 200_000, ["steps", "seed"])


def test_answers_are_printed_without_steering(capsys):
    from evenhand.cli.inference import _print_groups
    from evenhand.types import Completion, Group, Prompt

    _print_groups([Group(prompt=Prompt(content=STEERS), completions=(Completion(content=f"[bold]{STEERS}"),))])
    out = capsys.readouterr().out
    assert steers(out) == []
    assert "[bold]" in out
