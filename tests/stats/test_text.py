"""Text measures on sentences small enough to count by hand."""

from __future__ import annotations

import math

import pytest

from evenhand.errors import UserError
from evenhand.stats.text import distinct_n, length_entropy, ngrams, repetition, self_overlap


def test_distinct_counts_over_all_texts():
    # bigrams: (the cat)(cat sat) and (the cat)(cat ran): 3 distinct of 4; case does not matter
    assert distinct_n(["The cat sat", "the cat ran"]) == 0.75
    assert distinct_n(["a b", "c d"], n=1) == 1.0
    assert math.isnan(distinct_n(["one"], n=2))


def test_distinct_does_not_join_texts():
    assert distinct_n(["a b", "b a"], n=2) == 1.0
    assert len(ngrams(["a", "b", "c"], 2)) == 2


def test_repetition_of_a_loop_and_of_prose():
    assert repetition("go on " * 50, n=2) == pytest.approx(1 - 2 / 99)
    assert repetition("every word here differs") == 0.0
    assert math.isnan(repetition("too short", n=3))


def test_overlap_of_answers():
    assert self_overlap(["same words here", "same words here"]) == 1.0
    assert self_overlap(["a b", "c d"]) == 0.0
    assert self_overlap(["a b", "a b", "c d"]) == pytest.approx(1 / 3)
    assert math.isnan(self_overlap(["a b c"]))


def test_length_entropy():
    assert length_entropy([100, 101]) == 0.0
    assert length_entropy([1, 1, 8, 8, 8, 8, 8, 8]) == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))
    with pytest.raises(UserError, match="none negative"):
        length_entropy([])


def test_ngrams_need_a_size():
    with pytest.raises(UserError, match="n = 0"):
        ngrams(["a"], 0)
