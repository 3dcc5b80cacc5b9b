"""`evenhand judge` with a judge that is none: said before any number, with a non-zero exit, on every kind of input."""

from __future__ import annotations

import json

import pytest

from evenhand.judges.chat import ChatReply
from tests.judges.fake_server import ANSWERS

SPEC = "{kind: llm, model: m, endpoint: 'http://127.0.0.1:9/v1', attempts: 1}"


@pytest.fixture
def says(monkeypatch):
    """The judging model answers by the function that is set: of the answers shown first and second."""

    def set_answer(answer):
        def complete(self, requests):
            for i, request in enumerate(requests):
                yield i, ChatReply(text=answer(*ANSWERS.search(request.messages[-1].content).groups()))

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
def test_a_judge_that_is_none_is_said_before_any_number(cli, says, labelled, two_sides, tmp_path, name, tested, kind):
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


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("arena", {"uid": 0, "model": "m", "judge": "j", "games": [{"score": "A>B"}, {"score": "A>>B"}]}, "shown first"),
        ("arena", {"uid": 0, "model": "m", "judge": "j", "games": [{"score": "B>A"}, {"score": "B>A"}]}, "shown second"),
        ("arena", {"uid": 0, "model": "m", "judge": "j", "games": [{"score": None}, {"score": None}]}, "no row has two verdicts"),
        (
            "mt",
            {
                "question_id": 0,
                "model_1": "m",
                "model_2": "n",
                "g1_winner": "model_1",
                "g2_winner": "model_2",
                "judge": ["j", "t"],
                "turn": 1,
            },
            "shown first",
        ),
        (
            "mt",
            {
                "question_id": 0,
                "model_1": "m",
                "model_2": "n",
                "g1_winner": "error",
                "g2_winner": "error",
                "judge": ["j", "t"],
                "turn": 1,
            },
            "every judgment is an error",
        ),
    ],
)
def test_judgements_of_a_judge_that_is_none_are_refused_too(cli, tmp_path, name, row, words):
    key = "uid" if "uid" in row else "question_id"
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row | {key: str(i)}) + "\n" for i in range(6)))
    code, out, err = cli("evaluate", path)
    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.parametrize(("decision", "words"), [("A>B", "shown first"), (None, "not one decision could be read")])
def test_judge_benchs_judgements_likewise(decision, words):
    from evenhand.errors import UserError
    from evenhand.evaluation.reward_benchmarks import judge_bench_judgments

    row = {"label": "A>B", "source": "x", "judgments": [{"decision": decision}, {"decision": decision}]}
    with pytest.raises(UserError, match=words):
        judge_bench_judgments([(f"f:{i}", row) for i in range(6)])


def test_labels_of_a_judge_that_is_none_are_not_written(cli, says, tmp_path):
    says(lambda first, second: "I would rather not.")
    given = tmp_path / "answers.jsonl"
    given.write_text("".join(json.dumps({"prompt": f"p{i}", "completions": ["white", "red red"]}) + "\n" for i in range(5)))
    code, _, err = cli("label", given, "--model", "m", "--endpoint", "http://localhost:1/v1", "--out", tmp_path / "o.jsonl")
    assert code == 2
    assert "could be read" in err
    assert not (tmp_path / "o.jsonl").exists()


def test_a_program_is_warned_about_and_refused_only_when_it_is_random(cli, two_sides, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import itertools\nn = itertools.count()\n"
        "def moody(prompt, completion):\n    return next(n)\n"
        "def blind(prompt, completion):\n    return 1.0\n"
    )
    for name, code, words in (
        ("moody", 2, "the very same text gets different scores"),
        ("blind", 0, "every answer the same score"),
    ):
        spec = f"{{kind: function, path: '{tmp_path}/mine.py:{name}'}}"
        found, out, err = cli("judge", *two_sides, "--judge", spec, "--out", tmp_path / name)
        assert found == code, err
        said = err if code else out
        assert words in said
        assert code or said.index("FAILED") < said.index("wins")


def test_a_program_that_is_random_is_refused_on_labels_too(cli, tmp_path):
    code = "import itertools\nn = itertools.count()\ndef moody(prompt, completion):\n    return next(n)\n"
    (tmp_path / "mine.py").write_text(code)
    rows = [{"prompt": f"q{i}", "chosen": f"a good answer {i}", "rejected": f"bad words {i}"} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = f"{{kind: function, path: '{tmp_path}/mine.py:moody'}}"
    code, out, err = cli("judge", tmp_path / "pairs.jsonl", "--judge", spec, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "the very same text gets different scores" in err
    code, out, _ = cli("judge", tmp_path / "pairs.jsonl", "--judge", "{kind: length, unit: chars}", "--out", tmp_path / "out")
    assert code == 0
    assert "self-test" not in out, "labels show what another program is worth"
