"""The annotator's probabilities, frequencies and ceilings, against the formula and against enumeration."""

import math
from dataclasses import replace

import numpy as np
import pytest

from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.types import Completion, Group, Prompt, Scores
from evenhand.worlds.labels import Annotator, ceiling, gold_ceiling, label_all, repeated_share, words


def pair(a: str, b: str, name: str = "p") -> Group:
    return Group(prompt=Prompt(content=name), completions=(Completion(content=a), Completion(content=b)))


def test_words_drop_signs_and_keep_inner_hyphens():
    assert words("Well-known: I don't -- 3 times!") == ["well-known", "i", "don't", "3", "times"]


@pytest.mark.parametrize(("n", "share"), [(1, 3 / 5), (2, 1 / 2), (3, 1 / 3), (5, 0.0), (6, 0.0)])
def test_repeated_share_by_hand(n, share):
    assert repeated_share(list("ababa"), n) == pytest.approx(share)


def test_probability_is_the_bradley_terry_formula():
    annotator = Annotator(temperature=0.5)
    # utilities 1.0/0.5 = 2 and 0.25/0.5 = 0.5 (one word each, no bias)
    assert annotator.utility(1.0, "one") == 2.0
    assert annotator.probability(2.0, 0.5) == pytest.approx(1 / (1 + math.exp(-1.5)))


def test_flips_shrink_the_probability_towards_one_half():
    p = 1 / (1 + math.exp(-1.5))
    assert Annotator(temperature=1.0, flip=0.2).probability(1.5, 0.0) == pytest.approx(0.2 * (1 - p) + 0.8 * p)


def test_probabilities_of_the_two_orders_sum_to_one_even_far_out():
    annotator = Annotator(temperature=0.01, flip=0.05)
    for gap in (0.0, 1.0, 1e3, -1e6):
        assert annotator.probability(gap, 0.0) + annotator.probability(0.0, gap) == pytest.approx(1.0)


def test_the_length_bias_counts_words_and_nothing_else():
    annotator = Annotator(temperature=2.0, bias_per_word=0.3)
    assert annotator.utility(0.0, "a b c, d!") == pytest.approx(4 * 0.3 / 2.0)


def test_label_frequencies_follow_the_formula():
    n, annotator = 4000, Annotator(temperature=1.0, flip=0.1)
    group = pair("good", "bad")
    labelled = label_all(annotator, [group] * n, [Scores((1.0, 0.0))] * n, seed=3)
    p = 0.1 + 0.8 / (1 + math.exp(-1.0))
    won = sum(g.scores[0] for g in labelled) / n
    assert abs(won - p) < 4 * math.sqrt(p * (1 - p) / n)
    assert {g.scores for g in labelled} == {(1.0, 0.0), (0.0, 1.0)}


def test_a_cold_unbiased_annotator_always_picks_the_better_one():
    annotator = Annotator(temperature=1e-6)
    labelled = label_all(annotator, [pair("a", "b")] * 50, [Scores((0.1, 0.2))] * 50, seed=0)
    assert all(g.scores == (0.0, 1.0) for g in labelled)


def test_labels_do_not_depend_on_how_many_are_drawn():
    annotator, groups = Annotator(temperature=1.0), [pair("a", "b", str(i)) for i in range(20)]
    scores = [Scores((0.3, 0.1))] * 20
    long = label_all(annotator, groups, scores, seed=1)
    assert label_all(annotator, groups[:7], scores[:7], seed=1) == long[:7]
    assert label_all(annotator, groups, scores, seed=2) != long


def test_ceilings_equal_the_expected_accuracy_by_enumeration():
    """Two pairs whose preferences are known: every rule over two pairs is tried, the best one is the Bayes-optimal."""
    annotator = Annotator(temperature=1.0, bias_per_word=1.0)
    groups, scores = [pair("a b c", "a"), pair("a", "b")], [Scores((0.0, 0.5)), Scores((0.7, 0.0))]
    labelled = label_all(annotator, groups, scores, seed=0)
    p = [1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(-0.7))]
    accuracies = [((p[0] if i else 1 - p[0]) + (p[1] if j else 1 - p[1])) / 2 for i in (0, 1) for j in (0, 1)]
    assert ceiling(labelled) == pytest.approx(max(accuracies))
    # the gold order picks the second answer of the first pair (0.5 > 0) and the first of the second
    assert gold_ceiling(labelled) == pytest.approx((1 - p[0] + p[1]) / 2)


def test_a_tie_in_gold_counts_one_half():
    labelled = label_all(Annotator(temperature=1.0, bias_per_word=1.0), [pair("a b", "a")], [Scores((1.0, 1.0))], seed=0)
    assert gold_ceiling(labelled) == 0.5
    assert ceiling(labelled) == pytest.approx(1 / (1 + math.exp(-1.0)))


@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {"temperature": math.nan}, {"flip": 0.5}, {"flip": -0.1}])
def test_impossible_annotators_are_refused(changes):
    with pytest.raises(UserError):
        replace(Annotator(temperature=1.0), **changes)


def test_three_answers_and_unscored_answers_are_refused():
    annotator, generator = Annotator(temperature=1.0), rng(0)
    three = Group(prompt=Prompt(content="p"), completions=tuple(Completion(content=c) for c in "abc"))
    with pytest.raises(UserError, match="3"):
        annotator.label(three, Scores((0.0, 1.0, 2.0)), generator)
    with pytest.raises(UserError, match="without a reward"):
        annotator.label(pair("a", "b"), Scores((0.0, np.nan)), generator)


def test_ceiling_of_foreign_pairs_says_why_not():
    with pytest.raises(UserError, match="probabilities"):
        ceiling([pair("a", "b")])
