"""MT-Bench's two turns: asked one after the other, and one cluster in every interval."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evenhand.evaluation.conversations import converse, holds_questions
from evenhand.evaluation.judging import judge_run, summary
from evenhand.evaluation.leaderboard import leaderboard
from evenhand.evaluation.outcomes import clustered
from evenhand.judges import Comparison, RewardJudge
from evenhand.judges.verdict import Verdict
from evenhand.rewards.pointwise import pointwise
from evenhand.stats import win_rate
from evenhand.types import Completion, Group, Prompt

QUESTIONS = {
    "81": {"question_id": 81, "turns": ["One?", "Two?"], "category": "writing", "reference": ["1", "2"]},
    "82": {"question_id": 82, "turns": ["Alone?"]},
}


def test_the_second_turn_is_asked_behind_the_models_own_first_answer():
    asked = []

    def ask(prompts):
        asked.append(prompts)
        return [Group(prompt=p, completions=(Completion(content=f"{p.content[-1].content} Yes."),)) for p in prompts]

    groups = converse(QUESTIONS, ask)
    assert [[p.id for p in prompts] for prompts in asked] == [["81:1", "82:1"], ["81:2"]]
    assert [(m.role, m.content) for m in asked[1][0].content] == [
        ("user", "One?"), ("assistant", "One? Yes."), ("user", "Two?"),
    ]  # fmt: skip
    assert [g.prompt.id for g in groups] == ["81:1", "81:2", "82:1"]
    assert groups[1].completions[0].text == "[turn 1]\nOne? Yes.\n\n[turn 2]\nTwo? Yes."
    assert groups[1].prompt.meta == {"turn": 2, "category": "writing", "cluster": "81", "reference": "[turn 1]\n1\n\n[turn 2]\n2"}


def test_a_file_of_questions_is_known_by_its_fields(tmp_path):
    path = tmp_path / "question.jsonl"
    path.write_text("".join(json.dumps(q) + "\n" for q in QUESTIONS.values()))
    assert holds_questions(path)
    path.write_text(json.dumps({"question_id": 1, "model_id": "m", "choices": [], "turns": []}))
    assert not holds_questions(path)


def test_turns_of_one_question_are_one_cluster():
    """Both turns of 40 questions have the same outcome: the interval is that of 40, not of 80."""
    draw = np.random.default_rng(0)
    won = draw.integers(0, 2, 40)
    pairs, verdicts = [], []
    for i, y in enumerate(won):
        for turn in (1, 2):
            prompt = Prompt(content="q", id=f"{i}:{turn}", meta={"cluster": str(i)})
            pairs.append(Comparison(prompt=prompt, a=Completion(content="a" * (i % 7 + 1)), b=Completion(content="bbb")))
            verdicts.append(Verdict(outcome=float(y)))
    found = summary(pairs, verdicts)
    low, high = found["ci95"]
    one = 2.02 * won.std(ddof=1) / 40**0.5
    assert found["questions"] == 40
    assert high - low == pytest.approx(2 * one, rel=0.03)


def test_judging_a_run_contrasts_every_arm_with_the_baseline_first():
    def arm(text):
        return {
            "0": [Group(prompt=Prompt(content=f"q{i}", id=str(i)), completions=(Completion(content=text(i)),)) for i in range(30)]
        }

    answers = {"sft": arm(lambda i: "xx"), "dpo": arm(lambda i: "xxx" if i % 3 else "x"), "rloo": arm(lambda i: "xxxx")}
    longer = RewardJudge(pointwise(lambda p, c: float(len(c.text)), name="length"), name="length")
    found, records, _ = judge_run(answers, "sft", longer)
    assert [(c["a"], c["b"]) for c in found["contrasts"]] == [("dpo", "sft"), ("rloo", "sft"), ("dpo", "rloo")]
    assert found["contrasts"][0]["difference"] == pytest.approx(2 / 3 - 1 / 2)
    assert [c["contrasts"] for c in found["contrasts"]] == [2, 2, 1]
    assert list(found["arms"]) == ["dpo", "rloo"]
    assert {r["policy"] for r in records} == {"dpo", "rloo"}


def test_a_leaderboard_is_over_questions_too():
    """Forty questions, 26 won, both turns alike: 65 % is not clear of one half, as it would be on eighty prompts."""
    pairs, verdicts = [], []
    for i in range(40):
        for turn in (1, 2):
            prompt = Prompt(content="q", id=f"{i}:{turn}", meta={"cluster": str(i)})
            pairs.append(Comparison(prompt=prompt, a=Completion(content="a" * (i % 7 + 1)), b=Completion(content="bbb")))
            verdicts.append(Verdict(outcome=float(i < 26)))
    (row,) = leaderboard({"m": (pairs, verdicts)}, "base")
    one = win_rate([1.0] * 26 + [0.0] * 14)
    assert (row["win_rate"], row["questions"], row["n"]) == (0.65, 40, 80)
    assert row["ci95"] == pytest.approx(one.ci95)
    assert row["p_holm"] == pytest.approx(one.p)
    assert one.p > 0.05
    assert row["verdict"] == "inconclusive"
    together = row["ci95_simultaneous"]
    assert together is None or (together[0] <= row["ci95"][0] and row["ci95"][1] <= together[1])


def test_clusters_that_are_equal_up_to_rounding_are_no_surer_than_equal_ones():
    rounded = clustered(np.array([0.1, 0.1, 0.1, 0.3, 0.0, 0.0]), ["q"] * 3 + ["r"] * 3)
    equal = clustered(np.array([0.25, 0.0, 0.25, 0.0]), ["q", "q", "r", "r"])
    assert 0.0 < rounded["standard_error"] < 1e-12
    assert equal["standard_error"] == 0.0
    # two imagined clusters, the largest value above and below: sd = reach sqrt(2) / 4, and Student's t of one degree
    assert rounded["ci95"][1] - rounded["ci95"][0] == pytest.approx(2 * 12.7062 * 0.3 * 2**0.5 / 4, rel=1e-4)
    assert equal["ci95"][1] - equal["ci95"][0] == pytest.approx(2 * 12.7062 * 0.25 * 2**0.5 / 4, rel=1e-4)
