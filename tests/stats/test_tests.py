"""Tests and verdicts against scipy, enumeration and literals."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as sps

from evenhand.errors import UserError
from evenhand.stats.intervals import Component, two_sided_p
from evenhand.stats.tests import equivalence_p, equivalent, holm, mcnemar, permutation_test, sign_test, verdict, verdict_of
from evenhand.stats.twoway import Difference, paired_difference


@pytest.mark.parametrize(("up", "down"), [(0, 0), (1, 0), (5, 5), (9, 2), (2, 9), (60, 41)])
def test_sign_test_is_the_binomial_test(up, down):
    result = sign_test([0.3] * up + [-0.1] * down + [0.0] * 3)
    expected = sps.binomtest(up, up + down).pvalue if up + down else 1.0
    assert (result.positive, result.negative, result.zero) == (up, down, 3)
    assert result.p == pytest.approx(expected)


def test_mcnemar_by_enumeration():
    a, b = [1] * 9 + [0] * 3 + [1] * 20, [0] * 9 + [1] * 3 + [1] * 20
    result = mcnemar(a, b)
    tail = sum(math.comb(12, i) for i in range(9, 13)) / 2**12
    assert (result.b, result.c) == (9, 3)
    assert result.exact == pytest.approx(2 * tail)
    assert result.mid_p == pytest.approx(2 * tail - math.comb(12, 9) / 2**12)
    assert result.large == pytest.approx(sps.chi2.sf(36 / 12, 1))
    reach = 1.959964 * math.sqrt(12 - 36 / 32) / 32
    assert result.ci95 == pytest.approx((6 / 32 - reach, 6 / 32 + reach))


def test_mcnemar_of_a_draw_and_of_agreement():
    assert mcnemar([1, 1, 0, 0], [0, 0, 1, 1]).mid_p == pytest.approx(1.0)
    same = mcnemar([1, 0, 1], [1, 0, 1])
    assert (same.exact, same.mid_p, same.large, same.difference) == (1.0, 1.0, 1.0, 0.0)


def test_mcnemar_refuses_soft_outcomes():
    with pytest.raises(UserError, match="0 and 1"):
        mcnemar([0.5, 1.0], [0.0, 1.0])


def test_permutation_of_few_prompts_is_enumerated():
    d = np.array([0.4, -0.1, 0.3, 0.2, 0.0, 0.7])
    sums = [abs(np.dot(d, s)) for s in itertools.product((1, -1), repeat=6)]
    assert permutation_test(d) == pytest.approx(np.mean([s >= abs(d.sum()) - 1e-9 for s in sums]))


def test_permutation_of_many_prompts_is_near_the_t_test():
    d = np.random.default_rng(0).normal(0.12, 1.0, size=300)
    assert permutation_test(d) == pytest.approx(sps.ttest_1samp(d, 0.0).pvalue, abs=0.01)
    assert permutation_test(d, seed=1, draws=500) == permutation_test(d, seed=1, draws=500)


def test_holm_of_the_textbook():
    # Holm's own step-down on .01, .02, .03, .04, .05 with m = 5: .05, .08, .09, .09, .09.
    assert holm([0.05, 0.01, 0.03, 0.02, 0.04]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1.0, 1.0]


def test_holm_rejects_what_step_down_rejects():
    rng = np.random.default_rng(1)
    for _ in range(50):
        p = rng.random(6) ** 3
        rejected, open_ = set(), sorted(range(6), key=lambda i: p[i])
        while open_ and p[open_[0]] <= 0.05 / len(open_):
            rejected.add(open_.pop(0))
        assert {i for i, q in enumerate(holm(p.tolist())) if q <= 0.05} == rejected


def test_holm_refuses_nan():
    with pytest.raises(UserError, match="not all in"):
        holm([0.1, math.nan])


@pytest.mark.parametrize(
    ("ci", "per_seed", "expected"),
    [
        ((0.01, 0.2), (0.1, 0.1, 0.1), "better"),
        ((-0.2, -0.01), (-0.1, -0.1, -0.1), "worse"),
        ((0.01, 0.2), (0.1, 0.3, -0.05), "better"),  # k - 1 of 3 agree
        ((0.01, 0.2), (0.5, -0.1, -0.05), "inconclusive"),
        ((0.01, 0.2), (0.3, -0.05), "inconclusive"),  # both of two must agree
        ((0.01, 0.2), (0.1,), "better"),
        ((0.0, 0.2), (0.1, 0.1), "inconclusive"),  # 0 is not excluded
        ((-0.1, 0.2), (0.1, 0.1), "inconclusive"),
        ((0.01, 0.2), (0.1, 0.0, 0.0), "inconclusive"),  # a zero does not agree
    ],
)
def test_verdict_rule(ci, per_seed, expected):
    assert verdict_of(ci, per_seed) == expected


def test_verdict_swaps_with_its_arguments():
    rng = np.random.default_rng(2)
    a, b = rng.random((3, 80)) + 0.3, rng.random((3, 80))
    assert (verdict(paired_difference(a, b)), verdict(paired_difference(b, a))) == ("better", "worse")


def known_difference(estimate: float, part: Component) -> Difference:
    base = paired_difference([0.5, 0.4, 0.6, 0.5], [0.4, 0.5, 0.5, 0.6])
    error, p = math.sqrt(part.variance), two_sided_p(estimate, [part])
    return replace(base, estimate=estimate, standard_error=error, p=p, components=(part,), floor=part)


def test_equivalence_uses_the_90_percent_interval():
    d = known_difference(0.02, Component(0.01**2, 1e9))  # 90 %: .02 +- .01645; 95 %: +- .0196
    assert equivalent(d, 0.037)
    assert not equivalent(d, 0.036)
    assert not equivalent(replace(d, estimate=-0.02), 0.036)
    with pytest.raises(UserError, match="positive"):
        equivalent(d, 0.0)


def test_equivalence_p_is_the_larger_one_sided_p():
    """Normal parts: estimate 0.02, error 0.01, margin 0.05: z = 3 against the upper bound, 7 against the lower."""
    d = known_difference(0.02, Component(0.01**2, math.inf))
    assert equivalence_p(d, 0.05) == pytest.approx(0.5 * math.erfc(3 / math.sqrt(2)), rel=1e-6)
    assert equivalence_p(d, 0.01) == pytest.approx(1 - 0.5 * math.erfc(1 / math.sqrt(2)), rel=1e-6)  # outside the margin
    for margin in (0.03, 0.036, 0.0365, 0.04):
        assert equivalent(d, margin) == (equivalence_p(d, margin) < 0.05)
    with pytest.raises(UserError, match="positive"):
        equivalence_p(d, 0.0)


@pytest.mark.parametrize("kind", ["pairs", "against one half", "seeds that agree", "rewards"])
def test_equivalence_p_goes_with_the_interval_of_every_kind_of_table(kind: str) -> None:
    """Of few prompts the interval is that of a score test, or of two imagined prompts; so must the p be."""
    rng, seen = np.random.default_rng(len(kind)), set()
    for n in (2, 6, 12, 27, 36):
        for k in (1, 2, 3):
            a, b = (rng.random((2, k, n)) < 0.5).astype(float)
            if kind == "against one half":
                b = np.full((k, n), 0.5)
            if kind == "seeds that agree":
                a, b = np.tile(a[:1], (k, 1)), np.tile(b[:1], (k, 1))
            if kind == "rewards":
                a, b = a + rng.normal(0, 0.1, (k, n)), a
            d = paired_difference(a, b)
            ends = [abs(end) for end in d.interval(0.9)]
            for margin in (max(*ends) * 0.999, max(*ends) * 1.001, 0.3):
                assert equivalent(d, margin) == (equivalence_p(d, margin) < 0.05)
                seen.add(equivalent(d, margin))
    assert seen == {True, False}
