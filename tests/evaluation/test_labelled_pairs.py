"""Two answers and a label, as other projects write them; people beside the judge."""

from __future__ import annotations

import json

import pytest

from evenhand.errors import UserError
from evenhand.evaluation import agreement as agreements
from evenhand.evaluation.dispatch import evaluate_file
from evenhand.evaluation.labelled_pairs import is_labelled, read_pairs
from evenhand.evaluation.outcome_files import read_outcomes
from evenhand.judges import RewardJudge
from evenhand.rewards.pointwise import pointwise

LONGER = RewardJudge(pointwise(lambda p, c: float(len(c.text)), name="length"), name="length")


def says(text):
    return [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]


LLMBAR = {"input": "q", "output_1": "long answer", "output_2": "short", "label": 1}
PANDALM = {
    "idx": 0,
    "instruction": "q",
    "input": "",
    "response1": "a",
    "response2": "bb",
    "annotator1": 2,
    "annotator2": 0,
    "annotator3": 2,
}
FARM = {"instruction": "q", "input": "more", "output_1": "aa", "output_2": "b", "preference": 1.0, "annotator_index": 7}
ARENA = {"question_id": "x", "model_a": "m", "model_b": "n", "winner": "tie (bothbad)", "judge": "arena_user_1", "turn": 1,
         "conversation_a": says("aaa"), "conversation_b": says("b")}  # fmt: skip
ARENA_TABLE = {"id": "3", "model_a": "m", "model_b": "n", "prompt": '["one", "two"]', "response_a": '["x", "y"]',
               "response_b": '["u", "v"]', "winner_model_a": "0", "winner_model_b": "1", "winner_tie": "0"}  # fmt: skip
PARTS = {
    **ARENA,
    "winner": "both_bad",
    "conversation_a": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, says("aaa")[1]],
}
ANY = {"question": "q", "answer_a": "x", "answer_b": "yy", "better": "B"}


@pytest.mark.parametrize(
    ("row", "prompt", "labels"),
    [
        (LLMBAR, "q", {"": 1.0}), (PANDALM, "q", {"annotator1": 0.0, "annotator2": 0.5, "annotator3": 0.0}),
        (FARM, "q\n\nmore", {"7": 1.0}), (ARENA, "q", {"arena_user_1": 0.5}), (PARTS, "q", {"arena_user_1": 0.5}),
        (ARENA_TABLE, "[turn 1]\none\n\n[turn 2]\ntwo", {"": 0.0}), (ANY, "q", {"": 0.0}),
    ],
)  # fmt: skip
def test_every_form_gives_a_pair_with_its_labels(row, prompt, labels):
    assert is_labelled(row)
    (pair,) = read_pairs([("f:1", row)])
    assert (pair.group.prompt.text, dict(pair.labels)) == (prompt, labels)
    mean = sum(labels.values()) / len(labels)
    assert pair.group.scores == (mean, 1 - mean)


def test_mt_benchs_people_judge_a_turn_of_a_question():
    two = [*says("one"), {"role": "user", "content": "q2"}, {"role": "assistant", "content": "two"}]
    row = {"question_id": 81, "model_a": "m", "model_b": "n", "winner": "model_a", "judge": "expert_0", "conversation_a": two,
           "conversation_b": two, "turn": 1}  # fmt: skip
    first, second = read_pairs([("f:1", row), ("f:2", {**row, "turn": 2})])
    assert (first.group.prompt.text, first.group.completions[0].text) == ("q", "one")
    assert second.group.completions[0].text == "[turn 1]\none\n\n[turn 2]\ntwo"
    assert first.group.prompt.meta["cluster"] == second.group.prompt.meta["cluster"] == "81"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{**LLMBAR, "label": 0}, {**LLMBAR, "input": "r", "label": 1}], "labels are 0 and 1"),
        ([{**LLMBAR, "label": "maybe"}], "label is 'maybe'"),
        ([LLMBAR, LLMBAR], "labels this pair twice"),
        ([{"question": "q", "answer_a": "x", "label": 1}], "two answers with a label"),
        ([{**ARENA, "conversation_b": says("b")[:1]}], "no list of questions with their answers"),
    ],
)
def test_what_cannot_be_read_is_refused(rows, said):
    with pytest.raises(UserError, match=said):
        read_pairs([(f"f:{i}", row) for i, row in enumerate(rows)])


def test_zero_is_a_tie_beside_one_and_two():
    rows = [{**LLMBAR, "input": str(i), "label": label} for i, label in enumerate((0, 1, 2))]
    assert [p.labels[""] for p in read_pairs([("f", r) for r in rows])] == [0.5, 1.0, 0.0]


def test_a_judge_beside_several_people(tmp_path):
    """Three people on four pairs; ann and bob prefer the longer answer always, cid never."""
    path = tmp_path / "people.jsonl"
    texts = [("aaaa", "b"), ("a", "bbb"), ("aa", "b"), ("a", "bb")]
    rows = [
        {
            "prompt": f"q{i}",
            "response_a": a,
            "response_b": b,
            "winner": ("A" if (len(a) > len(b)) == honest else "B"),
            "annotator": who,
        }
        for i, (a, b) in enumerate(texts)
        for who, honest in (("ann", True), ("bob", True), ("cid", False))
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    pairs = agreements.labelled(path)
    assert len(pairs) == 4
    found, verdicts = agreements.agreement(pairs, LONGER)
    assert (found["agreement"], len(verdicts)) == (1.0, 4)  # two of three people
    told = found["annotators"]
    kappa = {frozenset((r["a"], r["b"])): r["value"] for r in told["with_judge"]["cohen"]}
    assert kappa[frozenset(("judge", "ann"))] == kappa[frozenset(("ann", "bob"))] == 1.0
    assert kappa[frozenset(("judge", "cid"))] == -1.0
    assert told["people"]["alpha"]["n"] == 4


def test_pairs_whose_labels_tie_count_in_the_coefficients_alone(tmp_path):
    path = tmp_path / "pandalm.json"
    rows = [
        {**PANDALM, "instruction": f"q{i}", "annotator1": v, "annotator2": v, "annotator3": v} for i, v in enumerate((0, 2, 1, 2))
    ]
    path.write_text(json.dumps(rows))
    found, _ = agreements.agreement(agreements.labelled(path), LONGER)
    assert (found["label_ties"], found["n"], found["agreement"]) == (1, 3, pytest.approx(2 / 3))
    assert found["annotators"]["people"]["alpha"]["value"] == 1.0


def test_arena_battles_become_ratings(tmp_path):
    path = tmp_path / "battles.jsonl"
    played = [("x", "y", "model_a"), ("y", "x", "model_b"), ("x", "z", "tie"), ("z", "y", "model_a")] * 3
    rows = [{"model_a": a, "model_b": b, "winner": w, "question_id": str(i), "turn": 1} for i, (a, b, w) in enumerate(played)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert [r["outcome"] for r in read_outcomes(path)][:4] == [1.0, 0.0, 0.5, 1.0]
    found = evaluate_file(path)
    assert (found["kind"], found["battles"], found["prompts"]) == ("battles", 12, 12)
    assert found["ratings"][-1]["name"] == "y"


def test_both_ages_of_arena_hard(tmp_path):
    from evenhand.evaluation import arena_hard
    from evenhand.evaluation.answers import read_answers

    games = [{"user_prompt": "", "judgment": "", "score": s} for s in ("B>A", "A>B")]
    old = [{"question_id": f"q{i}", "model": "m", "judge": "j", "games": games} for i in range(4)]
    new = [{"uid": f"q{i}", "model": "m", "judge": "j", "baseline": "b", "games": games} for i in range(4)]
    assert arena_hard.battles(old) == arena_hard.battles(new)
    path = tmp_path / "old.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in old))
    assert evaluate_file(path)["scores"]["m"]["score"] == 100.0
    answers, questions = tmp_path / "answers.jsonl", tmp_path / "question.jsonl"
    answers.write_text(json.dumps({"question_id": "q1", "answer_id": "a", "model_id": "m", "tstamp": 0.0,
                                   "choices": [{"index": 0, "turns": [{"content": "Yes.", "token_len": 2}]}]}))  # fmt: skip
    questions.write_text(json.dumps({"question_id": "q1", "category": "arena-hard-v0.1", "turns": [{"content": "Why?"}]}))
    name, (group,) = read_answers(answers, questions)
    assert (name, group.prompt.id, group.prompt.text, group.completions[0].text) == ("m", "q1", "Why?", "Yes.")
