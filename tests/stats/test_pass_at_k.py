"""pass@k against the enumeration of all subsets, and its expectation."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest

from evenhand.errors import UserError
from evenhand.stats.pass_at_k import pass_at_k


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_it_is_the_share_of_subsets_that_hold_a_right_answer(k):
    for c in range(7):
        answers = [True] * c + [False] * (6 - c)
        share = np.mean([any(subset) for subset in combinations(answers, k)])
        assert pass_at_k([c], 6, k)[0] == pytest.approx(share)
        assert pass_at_k([c], 6, k)[0] == pytest.approx(1 - comb(6 - c, k) / comb(6, k))


def test_its_mean_is_the_true_probability_and_the_plugged_in_one_is_too_small():
    p, n, k = 0.3, 10, 4
    counts = np.arange(n + 1)
    chance = np.array([comb(n, c) * p**c * (1 - p) ** (n - c) for c in counts])
    truth = 1 - (1 - p) ** k
    assert chance @ pass_at_k(counts, n, k) == pytest.approx(truth)
    assert chance @ (1 - (1 - counts / n) ** k) < truth - 0.01


def test_large_numbers_stay_exact():
    assert pass_at_k([1], 100_000, 10)[0] == pytest.approx(1e-4, rel=1e-9)


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(UserError, match="pass@5 from 4"):
        pass_at_k([1], 4, 5)
    with pytest.raises(UserError, match="5 of 4"):
        pass_at_k([5], 4, 2)
