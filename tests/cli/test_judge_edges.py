"""`evenhand judge` with a judge that is none: said before any number, with a non-zero exit, on every kind of input."""

from __future__ import annotations

import json

import pytest

from evenhand.judges.chat import Reply
from tests.cli.test_evaluate import cli  # noqa: F401
from tests.judges.fake_server import ANSWERS

SPEC = "{kind: llm, model: m, endpoint: 'http://127.0.0.1:9/v1', attempts: 1}"


@pytest.fixture
def says(monkeypatch):
    """The judging model answers by the function that is set: of the answers shown first and second."""

    def set_answer(answer):
        def complete(self, requests):
            for i, request in enumerate(requests):
                yield i, Reply(text=answer(*ANSWERS.search(request.messages[-1].content).groups()))

        monkeypatch.setattr("evenhand.judges.endpoint.Endpoint.complete", complete)

    return set_answer


@pytest.fixture
def labelled(tmp_path):
    rows = [
        {"prompt": f"question {i}", "chosen": f"a long and good answer to number {i}", "rejected": f"bad {i}"} for i in range(8)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture
def two_sides(tmp_path):
    paths = []
    for name, text in (("a", "a long and good answer to number"), ("b", "some short answer no")):
        paths.append(tmp_path / f"{name}.jsonl")
        rows = [{"prompt": f"question {i}", "completion": f"{text} {i}"} for i in range(8)]
        paths[-1].write_text("".join(json.dumps(r) + "\n" for r in rows))
    return paths


BAD = {
    "unreadable": (lambda first, second: "I would rather not.", "could be read"),
    "always A": (lambda first, second: "Preferred: A", "the answer shown first in both orders"),
    "random": (lambda first, second: f"Preferred: {'AB'[len(first + second) % 2]}", "self-test"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("tested", [0, 20])
@pytest.mark.parametrize("kind", ["labels", "sides"])
def test_a_judge_that_is_none_is_said_before_any_number(cli, says, labelled, two_sides, tmp_path, name, tested, kind):  # noqa: F811
    answer, words = BAD[name]
    says(answer)
    target = [labelled] if kind == "labels" else two_sides
    code, out, err = cli("judge", *target, "--judge", SPEC, "--self-test", tested, "--out", tmp_path / "o")
    if name == "random" and not tested:
        return  # without a self-test nothing tells chance from a close race
    assert code == 2
    assert out == ""
    assert words in err
    assert (tmp_path / "o" / "verdicts.jsonl").exists() == (tested == 0)
    assert not (tmp_path / "o" / "summary.json").exists()
