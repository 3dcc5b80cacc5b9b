"""The file of labels: every click on the disk, nothing rewritten, a torn line forgiven and a broken one not."""

from __future__ import annotations

import json

import pytest

from evenhand.errors import UserError
from evenhand.judges.label_log import LabelLog, item_name
from evenhand.types import Message, Prompt

LABEL = {"annotator": "ann", "item": "i", "answers": ("a", "b"), "scores": (1.0, 0.0), "label": "first"}


def test_labels_and_what_was_taken_back_survive(tmp_path):
    path = tmp_path / "deep" / "labels.jsonl"
    log = LabelLog(path)
    log.add(**LABEL, reason="shorter", seconds=1.23456)
    log.add(**LABEL | {"annotator": "bob", "scores": (), "label": "skip"})
    last = log.add(**LABEL | {"item": "j", "scores": (0.5, 0.5), "label": "tie"})
    assert log.undo("ann") == last
    assert log.undo("carol") is None
    again = LabelLog(path)
    assert again.labels == log.labels
    assert [(x.annotator, x.label, x.by_answer(), x.reason, x.seconds) for x in again.labels] == [
        ("ann", "first", {"a": 1.0, "b": 0.0}, "shorter", 1.2346), ("bob", "skip", {}, "", 0.0),
    ]  # fmt: skip
    assert again.add(**LABEL).number == 4, "numbers are not used twice"
    assert len(path.read_bytes().splitlines()) == 5


def test_each_label_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    order = []
    log = LabelLog(tmp_path / "labels.jsonl")
    monkeypatch.setattr("os.fsync", lambda fd: order.append(len((tmp_path / "labels.jsonl").read_bytes().splitlines())))
    log.add(**LABEL)
    log.undo("ann")
    assert order == [1, 2]


def test_a_line_that_a_kill_cut_short_is_asked_again_and_the_rest_stays(tmp_path, caplog):
    path = tmp_path / "labels.jsonl"
    LabelLog(path).add(**LABEL)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    log = LabelLog(path)
    assert len(log.labels) == 1
    assert "cut short" in caplog.text
    log.add(**LABEL | {"item": "k"})
    assert [x.item for x in LabelLog(path).labels] == ["i", "k"]


@pytest.mark.parametrize(
    "line",
    [
        "[]", "nothing", '{"number": "one"}',
        '{"number": 1, "annotator": "a", "item": "i", "answers": ["x"], "scores": [1, 2], "label": ""}',
        '{"number": 1, "annotator": "a", "item": "i", "answers": ["x"], "scores": ["y"], "label": "tie"}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_label_is_named(tmp_path, line):
    path = tmp_path / "labels.jsonl"
    path.write_text(line + "\n" + json.dumps({"number": 9, "annotator": "x", "undo": 1}) + "\n")
    with pytest.raises(UserError, match=r"labels\.jsonl:1"):
        LabelLog(path)


def test_an_item_is_its_question_and_its_answers_in_any_order():
    ask = Prompt(content=(Message("user", "hi"),), id="one")
    name = item_name(ask, ("x", "y"))
    assert name == item_name(Prompt(content=(Message("user", "hi"),), id="two"), ("y", "x"))
    assert name != item_name(ask, ("x", "z"))
    assert name != item_name(Prompt(content="hi"), ("x", "y"))


@pytest.mark.parametrize(
    "change",
    [{"seconds": "long"}, {"seconds": None}, {"scores": [10**400, 0]}, {"reason": 3}, {"undo": [1]}, {"undo": "last"}],
)
def test_a_line_of_other_types_is_named(tmp_path, change):
    row = {"number": 0, **LABEL, **change}
    (tmp_path / "labels.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"labels.jsonl:1: is no label"):
        LabelLog(tmp_path / "labels.jsonl")
