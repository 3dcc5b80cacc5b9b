"""Agreement of raters: the worked examples of the papers, identities, and what cannot be said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evenhand.stats.agreement import agreement_of, cohen_kappa, fleiss_kappa, krippendorff_alpha, repeat_noise

NONE = math.nan
FOUR = np.array([  # Krippendorff (2011), part C: four observers, twelve units
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
])  # fmt: skip
FLEISS = np.array([  # ten subjects, fourteen raters, five categories
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0], [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
])  # fmt: skip


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example(level, alpha):
    assert krippendorff_alpha(FOUR, level) == pytest.approx(alpha, abs=5e-4)


def test_fleiss_example():
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)


def test_cohens_kappa_by_enumeration():
    """Of 100 items 45 both-yes, 15 and 25 split, 15 both-no: p_o = .6, p_e = .6 x .7 + .4 x .3 = .54."""
    a = [1] * 45 + [1] * 15 + [0] * 25 + [0] * 15
    b = [1] * 45 + [0] * 15 + [1] * 25 + [0] * 15
    assert cohen_kappa(a, b) == pytest.approx((0.6 - 0.54) / 0.46)
    assert cohen_kappa([*a, NONE], [*b, 1]) == cohen_kappa(a, b)


def test_perfect_agreement_is_one_and_one_category_says_nothing():
    table = np.array([[0, 1, 0.5, 1]] * 3)
    assert krippendorff_alpha(table, "ordinal") == 1.0
    assert agreement_of({"a": table[0], "b": table[1]}).fleiss.value == 1.0
    assert math.isnan(krippendorff_alpha(np.ones((3, 5))))
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    assert math.isnan(cohen_kappa([NONE], [1]))


def test_two_raters_with_equal_margins_have_fleiss_below_cohen_by_nothing():
    """With equal margins Fleiss' and Cohen's chance are the same."""
    a, b = [1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 1, 0]
    found = agreement_of({"a": a, "b": b})
    assert found.fleiss.value == pytest.approx(cohen_kappa(a, b))
    assert found.pairs["a", "b"].value == pytest.approx(1 / 3)


def test_random_raters_agree_as_chance_does_and_the_interval_covers_it():
    draw = np.random.default_rng(0)
    found = agreement_of({name: draw.integers(0, 2, 400) for name in "abc"})
    low, high = found.alpha.ci95
    assert low < 0.0 < high
    assert abs(found.alpha.value) < 0.1
    assert set(found.pairs) == {("a", "b"), ("a", "c"), ("b", "c")}


def test_a_rater_who_left_items_out_costs_fleiss_those_items_only():
    found = agreement_of({"a": [1, 0, 1, 0], "b": [1, 0, 1, 1], "c": [1, 0, NONE, 0]})
    assert (found.alpha.n, found.fleiss.n, found.pairs["a", "c"].n) == (4, 3, 3)


def test_repeats_say_how_much_of_the_variance_is_the_judges_own():
    """Pairs won with probability p_i, judged r times: the variance over prompts of the mean is Var p + E p(1 - p) / r."""
    draw = np.random.default_rng(1)
    p = draw.choice([0.2, 0.8], 20_000)
    found = repeat_noise((draw.random((4, len(p))) < p).astype(float))
    noise = 0.16
    assert found.sd**2 == pytest.approx(noise, rel=0.02)
    assert found.share == pytest.approx(noise / 4 / (0.09 + noise / 4), rel=0.03)
    steady = repeat_noise(np.tile([0.0, 1.0, 1.0], (3, 1)))
    assert (steady.sd, steady.share) == (0.0, 0.0)
