from __future__ import annotations

import itertools
import math

import pytest

from evenhand.errors import UserError
from evenhand.evaluation.probes import probe
from evenhand.judges import Verdict
from evenhand.rewards.tournament import Tournament, borda, knock_out
from evenhand.types import Completion, Group, Prompt


class Longer:
    """Prefers the longer answer with probability 0.9; counts what it is asked."""

    name, revision = "longer", "1"

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, comparisons, progress=None):
        self.asked += len(comparisons)
        return [
            Verdict(outcome=0.5 if len(c.a.text) == len(c.b.text) else 0.9 if len(c.a.text) > len(c.b.text) else 0.1)
            for c in comparisons
        ]


def group(*texts: str) -> Group:
    return Group(prompt=Prompt(content="?"), completions=tuple(Completion(content=t) for t in texts))


def test_borda_is_the_mean_chance_against_the_others():
    judge = Longer()
    (scores,) = Tournament(judge)([group("aa", "a", "aaa", "aa")])
    assert scores.values == pytest.approx(((0.5 + 0.9 + 0.1) / 3, 0.1, 0.9, (0.5 + 0.9 + 0.1) / 3))
    assert judge.asked == 6  # every unordered pair once; both orders are the judge's own business


def test_borda_scores_sum_to_half_the_players():
    (scores,) = Tournament(Longer())([group("a", "bb", "ccc", "dddd", "eeeee")])
    assert sum(scores.values) == pytest.approx(5 / 2)


def test_knock_out_finds_the_best_in_any_draw():
    for texts in itertools.permutations(["a", "bb", "ccc", "dddd", "eeeee"]):
        judge = Longer()
        (scores,) = Tournament(judge, "knock_out")([group(*texts)])
        assert max(scores.values) == scores.values[texts.index("eeeee")] > sorted(scores.values)[-2]
        assert judge.asked == 4


def test_two_answers_have_the_same_order_by_either_rule():
    assert borda(2, lambda pairs: [0.8]) == pytest.approx([0.8, 0.2])
    assert knock_out(2, lambda pairs: [0.8]) == [1.0, 0.0]


def test_nobody_to_play():
    (scores,) = Tournament(Longer())([group("alone")])
    assert math.isnan(scores.values[0])


def test_unknown_rule():
    with pytest.raises(UserError, match="did you mean 'borda'"):
        Tournament(Longer(), "broda")


def test_probes_show_a_comparing_reward_both_answers():
    """A single answer has no score; "said twice" beats "said once" by 0.9 to 0.1 for a judge that likes length."""
    found = probe([group("one two", "x"), group("three", "y")], Tournament(Longer()))
    assert found["repetition"]["raised"] == 1.0
    assert found["repetition"]["change"] == pytest.approx(0.8)
    assert found["repetition"]["n"] == 2
