"""Whatever length control has to say of a number stands beside it: after `judge`, after `evaluate`, and in leaderboards."""

from __future__ import annotations

import csv
import json

import pytest

from evenhand.cli.evaluate import _shown
from evenhand.cli.tables import model_lines, rate_lines, side_lines
from evenhand.evaluation.dispatch import evaluate_file
from evenhand.evaluation.judging import summary
from evenhand.evaluation.leaderboard import leaderboard
from evenhand.evaluation.outcome_files import read_outcomes
from evenhand.evaluation.outcomes import compare
from evenhand.judges.verdict import Comparison, Order, Status, Verdict
from evenhand.types import Completion, Prompt

BASELINE = 20
NOTES = {
    # what is noted: (outcomes, characters of the answers; the baseline's have 20)
    "every length difference is the same": ([1, 0, 1, 0, 1, 1], [25] * 6),
    "the lengths hardly overlap": ([1, 0, 1, 0, 1, 1], [120, 121, 122, 123, 121, 122]),
    "every comparison has the same outcome": ([1] * 6, [22, 18, 25, 19, 30, 12]),
    "the lengths alone tell wins from losses": ([1, 1, 1, 0, 0, 0], [22, 25, 30, 18, 19, 12]),
    "length control moved the win rate far, from 66.7 % to": ([1] * 15 + [0] * 8 + [1], [30] * 16 + [19] * 8),
}


def judged(outcomes, lengths):
    """The comparisons and their verdicts, each the same in both orders."""
    sides = [(Prompt(content=f"q{i}"), Completion(content="a" * n)) for i, n in enumerate(lengths)]
    pairs = [Comparison(prompt=prompt, a=answer, b=Completion(content="b" * BASELINE)) for prompt, answer in sides]
    orders = [tuple(Order(a_first=f, outcome=float(y), status=Status.READ, raw="") for f in (True, False)) for y in outcomes]
    return pairs, [Verdict(outcome=float(y), orders=o) for y, o in zip(outcomes, orders, strict=True)]


def table(path, outcomes, lengths):
    """The same as a file of outcomes: one arm, one seed."""
    header = ("arm", "seed", "prompt", "outcome", "length", "baseline_length")
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(header)
        out.writerows(("m", 0, f"q{i}", y, n, BASELINE) for i, (y, n) in enumerate(zip(outcomes, lengths, strict=True)))
    return path


def annotations(path, outcomes, lengths):
    """The same as AlpacaEval's list."""
    rows = [
        {"instruction": f"q{i}", "output_1": "b" * BASELINE, "output_2": "a" * n, "generator_1": "base", "generator_2": "m",
         "preference": 1.0 + y}
        for i, (y, n) in enumerate(zip(outcomes, lengths, strict=True))
    ]  # fmt: skip
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("note", NOTES)
def test_judge_shows_it(note):
    pairs, verdicts = judged(*NOTES[note])
    assert note in "\n".join(side_lines({"a": "m", "b": "base", **summary(pairs, verdicts)}))


@pytest.mark.parametrize("note", NOTES)
def test_a_leaderboard_of_judged_models_shows_it(note):
    lines = model_lines(leaderboard({"m": judged(*NOTES[note])}, "base"))
    assert any(line.lstrip().startswith("at equal length:") and note in line for line in lines), lines


@pytest.mark.parametrize("note", NOTES)
def test_evaluate_shows_it_of_outcomes_and_in_alpaca_evals_leaderboard(note, tmp_path):
    assert note in "\n".join(_shown(evaluate_file(table(tmp_path / "o.csv", *NOTES[note]))))
    assert note in "\n".join(_shown(evaluate_file(annotations(tmp_path / "annotations.json", *NOTES[note]))))


@pytest.mark.parametrize("note", NOTES)
def test_every_interval_of_an_arm_shows_it_for_both_forms(note, tmp_path):
    found = compare(read_outcomes(table(tmp_path / "o.csv", *NOTES[note])), full=True)["arms"]["m"]["length_controlled"]
    assert note in found["note"]
    lines = "\n".join(rate_lines(compare(read_outcomes(tmp_path / "o.csv"), full=True)["arms"]))
    assert "nan%" not in lines
    if note.startswith("length control moved"):
        assert "refused: the l1 fit does not settle" in lines, "with one win among the short answers, which one fold leaves out"
    else:
        assert lines.count(note) == 2, "once for each form, which refuse alike"


def test_a_number_without_a_note_has_none_beside_it():
    lines = model_lines(leaderboard({"m": judged([1, 0, 1, 0, 1, 1, 0, 0], [22, 18, 25, 19, 18, 12, 24, 30])}, "base"))
    assert not any("at equal length:" in line for line in lines)
