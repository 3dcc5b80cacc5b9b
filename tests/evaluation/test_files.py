"""Files of other tools, written and read in their own forms; numbers against literals and the public leaderboard."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from evenhand.data.jsonl import write_groups
from evenhand.errors import UserError
from evenhand.evaluation import alpaca_eval, arena_hard
from evenhand.evaluation.answers import matched, read_answers
from evenhand.evaluation.dispatch import evaluate_file, read_difficulty
from evenhand.evaluation.readers import read_rows
from evenhand.judges import Comparison, Order, Status, Verdict
from evenhand.types import Completion, Group, Message, Prompt


def group(question, answer, **prompt):
    return Group(prompt=Prompt(content=question, **prompt), completions=(Completion(content=answer),))


def verdict(first, second, labels=("", ""), status=Status.READ):
    orders = tuple(
        Order(a_first=a_first, outcome=y, status=status, label=label)
        for a_first, y, label in ((True, first, labels[0]), (False, second, labels[1]))
    )
    return Verdict(outcome=(first + second) / 2, orders=orders)


def comparison(question="q", a="model text", b="base", **prompt):
    return Comparison(prompt=Prompt(content=question, **prompt), a=Completion(content=a), b=Completion(content=b))


def test_alpaca_eval_outputs_round_trip(tmp_path):
    groups = [group("Q\u2028uestion {x}", "answer", meta={"dataset": "koala"}), group("Q2", "")]
    alpaca_eval.write_outputs(tmp_path / "m.json", groups, "my model")
    rows = json.loads((tmp_path / "m.json").read_text())
    assert rows[0] == {"dataset": "koala", "instruction": "Q\u2028uestion {x}", "output": "answer", "generator": "my model"}
    name, read = read_answers(tmp_path / "m.json")
    assert name == "my model"
    assert [(g.prompt.text, g.completions[0].text) for g in read] == [("Q\u2028uestion {x}", "answer"), ("Q2", "")]
    rows[1]["generator"] = "other"
    (tmp_path / "m.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match="2 generators"):
        read_answers(tmp_path / "m.json")


def test_alpaca_eval_annotations_put_the_baseline_first():
    (row,) = alpaca_eval.annotated([comparison()], [verdict(1.0, 0.5)], model="M", baseline="B", annotator="j")
    assert (row["output_1"], row["generator_1"], row["output_2"], row["generator_2"]) == ("base", "B", "model text", "M")
    assert row["preference"] == 1.75  # 2 would be a clear win of output_2, the model


def test_leaderboard_row_by_hand(tmp_path):
    preference = [2.0, 1.0, 0.0, 1.5, math.nan, 1.8]  # a win, a loss, an old code for a draw, a draw, not judged, a soft win
    line = alpaca_eval.leaderboard_row(preference, [10, 20, 30, 40, 9, 50], [30, 30, 30, 30, 30, 31])
    y = [1.0, 0.0, 0.5, 0.5, 0.8]
    assert line["win_rate"] == pytest.approx(56.0)
    assert line["standard_error"] == pytest.approx(100 * np.std(y, ddof=1) / math.sqrt(5))
    assert (line["n_wins"], line["n_wins_base"], line["n_draws"], line["n_total"]) == (2, 1, 2, 5)
    assert line["discrete_win_rate"] == pytest.approx(60.0)
    assert line["avg_length"] == 30
    alpaca_eval.write_leaderboard(tmp_path / "lb.csv", {"m": line})
    with open(tmp_path / "lb.csv", newline="") as file:
        header, row = csv.reader(file)
    assert header == list(alpaca_eval.LEADERBOARD)
    assert row[0] == "m"
    assert float(row[1]) == pytest.approx(56.0)


def test_public_judgements_give_the_leaderboards_numbers(real_data):
    data = real_data / "data" / "eval"
    hard = read_difficulty(data / "alpaca_instruction_difficulty.csv")
    found = evaluate_file(data / "alpaca_eval_judged.json.gz", hard)
    assert found["kind"] == "judged models"
    errors = []
    for line in found["leaderboard"].values():
        assert line["win_rate"] == pytest.approx(line["stated"]["win_rate"], abs=1e-4)
        assert line["standard_error"] == pytest.approx(line["stated"]["standard_error"], abs=1e-4)
        assert line["lc_form"] == "lc_noreg"
        errors.append(abs(line["length_controlled_winrate"] - line["stated"]["length_controlled_winrate"]))
    assert len(errors) == 7
    assert np.mean(errors) < 1.5


@pytest.mark.parametrize("count", [2, 4])
def test_difficulties_of_other_prompts_are_refused(tmp_path, count):
    """Fewer ended in a traceback, more were given to the first prompts whatever they belonged to."""
    row = {"output_1": "a b", "output_2": "c", "generator_1": "base", "generator_2": "m", "preference": 2.0}
    rows = [{**row, "instruction": text, "output_2": "c" * (i + 1)} for i, text in enumerate("xyz")]
    with pytest.raises(UserError, match=f"{count} difficulties for 3 prompts"):
        alpaca_eval.leaderboard(rows, [0.1] * count)
    table = {"m": {"preference": [1.0, 2.0, 2.0], "len_model": [1, 2, 3], "len_baseline": [2, 2, 2]}}
    path = tmp_path / "judged.json"
    path.write_text(json.dumps(table))
    with pytest.raises(UserError, match=f"{count} difficulties do not fit 3"):
        evaluate_file(path, [0.1] * count)
    path.write_text(json.dumps({"m": {**table["m"], "prompt": [0, 1, 7]}}))
    with pytest.raises(UserError, match="do not fit 3"):
        evaluate_file(path, [0.1] * 5)


def test_best_of_n_on_403_scored_prompts(real_data):
    found = evaluate_file(real_data / "data" / "pref" / "tulu_13b_11_samples_scored.jsonl.gz")
    assert found["kind"] == "answers"
    rows = [r["scores"] for r in read_rows(real_data / "data" / "pref" / "tulu_13b_11_samples_scored.jsonl.gz")]
    scores = np.array(rows, dtype=float)
    assert scores.shape == (403, 11)
    curves = found["best_of_n"]
    assert set(curves) == {"length", "random", "the score itself"}
    for points in curves.values():
        assert [p["n"] for p in points] == list(range(1, 12))
        assert points[0]["gold"] == pytest.approx(scores.mean())
        assert all(p["ci95"][0] < p["gold"] < p["ci95"][1] for p in points)
    own = [p["gold"] for p in curves["the score itself"]]
    assert own[-1] == pytest.approx(scores.max(axis=1).mean())
    pairs = [np.maximum(scores[:, i], scores[:, j]).mean() for i in range(11) for j in range(i)]
    assert own[1] == pytest.approx(np.mean(pairs))  # every pair of samples, by hand
    assert abs(curves["random"][10]["gold"] - scores.mean()) < 0.04  # chance gains nothing
    assert own == sorted(own)


def test_length_bias_of_scored_answers(tmp_path):
    """Three prompts: a score that is the length, one that is its opposite, one that never varies."""
    texts = ["a", "bb", "cccc"]
    scores = [(1.0, 2.0, 4.0), (-1.0, -2.0, -4.0), (5.0, 5.0, 5.0)]
    groups = [
        Group(prompt=Prompt(content=f"q{i}"), completions=tuple(Completion(content=t) for t in texts), scores=s)
        for i, s in enumerate(scores)
    ]
    write_groups(tmp_path / "g.jsonl", groups)
    bias = evaluate_file(tmp_path / "g.jsonl")["length_bias"]["the score itself"]
    assert bias["mean_correlation"] == pytest.approx(0.0, abs=1e-9)
    assert (bias["share_above_0.3"], bias["prompts"], bias["skipped"]) == (0.5, 2, 1)
    counts = np.array(bias["heat"]["counts"])
    assert counts.sum() == 2
    assert (counts[0].sum(), counts[-1].sum()) == (1, 1)  # correlations of -1 and of 1


QUESTION = {"uid": "u1", "category": "hard_prompt", "subcategory": "math", "prompt": "line\u2028separator"}


def test_arena_hard_questions_and_answers(tmp_path):
    (tmp_path / "q.jsonl").write_text(json.dumps(QUESTION, ensure_ascii=False) + "\n", encoding="utf-8")
    (prompt,) = arena_hard.read_questions(tmp_path / "q.jsonl")
    assert (prompt.id, prompt.text, prompt.meta["category"]) == ("u1", "line\u2028separator", "hard_prompt")
    text = "# Head\n- one\n1. two\n**bold** and __bold__\n```\n# code\n```"
    arena_hard.write_answers(tmp_path / "m.jsonl", [Group(prompt=prompt, completions=(Completion(content=text),))], "m")
    (row,) = read_rows(tmp_path / "m.jsonl")
    assert row["messages"][1] == {"role": "assistant", "content": {"answer": text}}
    counts = row["metadata"]
    assert counts["header_count"] == {"h1": 1, "h2": 0, "h3": 0, "h4": 0, "h5": 0, "h6": 0}
    assert counts["list_count"] == {"ordered": 1, "unordered": 1}
    assert counts["bold_count"] == {"**": 1, "__": 1}
    assert counts["token_len_of"] == "words"
    name, groups = read_answers(tmp_path / "m.jsonl")
    assert (name, groups[0].prompt.id, groups[0].completions[0].text) == ("m", "u1", text)
    assert groups[0].prompt.content == (Message("user", "line\u2028separator"),)


def test_arena_hard_judgments_and_score():
    """Game 1 shows the baseline first, game 2 the model; strong verdicts weigh three; a row with an unread game is dropped."""
    pairs = [comparison(f"q{i}", id=f"u{i}") for i in range(3)]
    unread = Order(a_first=False, outcome=0.5, status=Status.INVALID)
    verdicts = [
        verdict(1.0, 0.0, ("A>>B", "A>B")),  # model first: A>>B; baseline first: A>B (the baseline wins)
        verdict(0.5, 1.0, ("A=B", "B>A")),
        Verdict(outcome=0.75, orders=(verdict(1.0, 0.5, ("A>B", "")).orders[0], unread)),
    ]
    rows = arena_hard.judgments(pairs, verdicts, model="M", baseline="B", judge="j")
    assert [[g and g["score"] for g in r["games"]] for r in rows] == [["A>B", "A>>B"], ["B>A", "A=B"], [None, "A>B"]]
    found = arena_hard.score(rows)
    assert found["score"] == pytest.approx(100 * (0 + 3 * 1 + 1 + 0.5) / 6)
    assert (found["n"], found["dropped"]) == (2, 1)


def test_verdicts_without_words_become_games_too():
    """A reward's verdict counts in both games and is never a strong one; an empty answer loses clearly."""
    scored = Verdict(outcome=1.0, orders=(Order(a_first=True, outcome=1.0, status=Status.SCORED),))
    empty = verdict(0.0, 0.0, status=Status.EMPTY)
    rows = arena_hard.judgments([comparison(id="u1"), comparison(id="u2")], [scored, empty], model="M", baseline="B", judge="j")
    assert [[g["score"] for g in r["games"]] for r in rows] == [["B>A", "A>B"], ["A>>B", "B>>A"]]


def test_sides_must_answer_the_same_prompts(tmp_path):
    a, b = [group("x", "1"), group("y", "2")], [group("y", "3"), group("x", "4")]
    assert [(c.prompt.text, c.b.text) for c in matched(a, b, "w")] == [("x", "4"), ("y", "3")]
    with pytest.raises(UserError, match="1 prompts are answered on one side only"):
        matched(a, b[:1], "w")
    with pytest.raises(UserError, match="answered twice"):
        matched([*a, *a], b, "w")
    write_groups(tmp_path / "g.jsonl", a)
    assert read_answers(tmp_path / "g.jsonl") == ("g", a)


def outcomes_file(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_outcome_files_from_elsewhere(tmp_path):
    rows = [
        {"model": arm, "seed": s, "prompt_id": p, "score": float(p % 4 < (3 if arm == "good" else 1))}
        for arm in ("good", "poor") for s in (0, 1, 2) for p in range(40)
    ]  # fmt: skip
    found = evaluate_file(outcomes_file(tmp_path / "o.csv", rows))
    assert found["arms"]["good"]["win_rate"] == 0.75
    assert found["arms"]["poor"]["per_seed"] == (0.25, 0.25, 0.25)
    (contrast,) = found["contrasts"]
    assert (contrast["a"], contrast["difference"], contrast["verdict"]) == ("good", 0.5, "better")
    assert contrast["minimum_detectable_difference"] > 0
    with pytest.raises(UserError, match="1 of 120 cells"):
        evaluate_file(outcomes_file(tmp_path / "gap.csv", [*rows[:5], *rows[6:]]))
    with pytest.raises(UserError, match="occurs twice"):
        evaluate_file(outcomes_file(tmp_path / "twice.csv", [*rows, rows[-1]]))
    with pytest.raises(UserError, match=r"o.csv:2: 'outcome' is missing"):
        evaluate_file(outcomes_file(tmp_path / "o.csv", [{"model": "a", "prompt": 1}]))


def test_right_and_wrong_get_mcnemar_and_equivalence_needs_its_margin(tmp_path):
    rows = [{"arm": arm, "prompt": p, "outcome": int(p % 2 == 0 or (arm == "x" and p == 1))} for arm in "xy" for p in range(100)]
    path = outcomes_file(tmp_path / "o.csv", rows)
    (contrast,) = evaluate_file(path, margin=0.05)["contrasts"]
    assert (contrast["mcnemar"]["b"], contrast["mcnemar"]["c"], contrast["mcnemar"]["exact"]) == (1, 0, 1.0)
    assert contrast["equivalent"] is True
    assert evaluate_file(path, margin=0.005)["contrasts"][0]["equivalent"] is False
    assert "equivalent" not in evaluate_file(path)["contrasts"][0]


def test_battles_become_ratings(tmp_path):
    rows = [
        {"first": a, "second": b, "outcome": y, "prompt": i}
        for i in range(8)
        for a, b, y in (("x", "y", 1), ("y", "z", 0.5), ("x", "z", i % 2))
    ]
    found = evaluate_file(outcomes_file(tmp_path / "b.csv", rows))
    assert found["kind"] == "battles"
    assert found["ratings"][0]["name"] == "x"


def test_broken_files_are_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(UserError, match=r"x.jsonl:2: not JSON"):
        read_rows(tmp_path / "x.jsonl")
    (tmp_path / "e.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no rows"):
        read_rows(tmp_path / "e.jsonl")
