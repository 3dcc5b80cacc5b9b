"""The crossed seed x prompt interval: enumerated mean squares, its special cases, and what it must refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from evenhand.errors import UserError
from evenhand.stats.intervals import soft_wilson, t_interval, wilson
from evenhand.stats.twoway import mean_squares, paired_difference, unmatched_difference, variance_components, win_rate

TABLE = np.array([[1.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 1.0], [0.0, 0.0, 0.5, 1.0]])


def test_mean_squares_by_hand():
    """By hand: grand mean 13/24, row means 5/8, 5/8, 3/8; column means 2/3, 1/6, 1/3, 1."""
    ms = mean_squares(TABLE)
    grand = 13 / 24
    assert ms.seeds == pytest.approx(4 * (2 * (5 / 8 - grand) ** 2 + (3 / 8 - grand) ** 2) / 2)
    assert ms.prompts == pytest.approx(3 * sum((c - grand) ** 2 for c in (2 / 3, 1 / 6, 1 / 3, 1.0)) / 3)
    total = sum((x - grand) ** 2 for x in TABLE.ravel())
    assert ms.seeds * 2 + ms.prompts * 3 + ms.residual * 6 == pytest.approx(total)  # the sums of squares add up


def test_interval_by_hand():
    """Half-width from the definition, with t quantiles from scipy."""
    d = np.array([[2.3, 1.1, 2.2, 4.6, 0.1], [0.4, 0.5, 3.3, 2.7, 0.9]])
    u, v = d.mean(axis=1), d.mean(axis=0)
    ms_s, ms_p = 5 * u.var(ddof=1), 2 * v.var(ddof=1)
    ms_e = sum((d[s, i] - u[s] - v[i] + d.mean()) ** 2 for s in range(2) for i in range(5)) / 4
    h2 = sps.t.ppf(0.975, 1) ** 2 * ms_s / 10 + sps.t.ppf(0.975, 4) ** 2 * (ms_p - ms_e) / 10
    result = paired_difference(d, np.zeros_like(d))
    assert ms_p > ms_e
    assert result.ci95 == pytest.approx((d.mean() - math.sqrt(h2), d.mean() + math.sqrt(h2)))
    assert result.standard_error == pytest.approx(math.sqrt((ms_s + ms_p - ms_e) / 10))
    assert result.per_seed == pytest.approx((2.06, 1.56))


def test_one_seed_is_the_paired_t_test():
    a, b = [0.9, 0.4, 0.8, 0.3], [0.5, 0.4, 0.6, 0.5]
    result, expected = paired_difference(a, b), sps.ttest_rel(a, b)
    ci = expected.confidence_interval(0.95)
    assert result.ci95 == pytest.approx((ci.low, ci.high))
    assert result.p == pytest.approx(expected.pvalue)
    assert result.df == 3
    assert result.k == 1
    assert "one run" in result.note
    assert result.ties == 0.25


def test_seed_effects_alone_give_the_t_test_over_seeds():
    effects, both = np.array([5.0, 9.0, 1.0]), np.arange(40.0)
    result = paired_difference(effects[:, None] + both, np.tile(both, (3, 1)))
    expected = sps.ttest_1samp(effects, 0.0)
    assert result.p == pytest.approx(expected.pvalue)
    assert result.ci95 == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_identical_seeds_give_the_prompt_interval():
    y = np.array([3.0, -1.0, 6.0, 2.0, 2.5, 0.5])
    result = paired_difference(np.tile(y, (4, 1)), np.zeros((4, 6)))
    assert result.ci95 == pytest.approx(t_interval(y))


def test_antisymmetric_and_shift_free():
    rng = np.random.default_rng(0)
    a, b, prompt = rng.random((3, 20)), rng.random((3, 20)), rng.normal(size=(1, 20))
    forward, backward = paired_difference(a, b), paired_difference(b, a)
    assert forward.ci95 == pytest.approx((-backward.ci95[1], -backward.ci95[0]))
    assert forward.p == pytest.approx(backward.p)
    assert paired_difference(a + prompt, b + prompt).ci95 == pytest.approx(forward.ci95)


def test_p_below_five_percent_exactly_when_the_interval_excludes_zero():
    rng = np.random.default_rng(1)
    seen = set()
    for shift in np.linspace(0, 0.5, 40):
        result = paired_difference(rng.random((3, 25)) + shift, rng.random((3, 25)))
        excludes = result.ci95[0] > 0 or result.ci95[1] < 0
        assert (result.p < 0.05) == excludes
        seen.add(excludes)
    assert seen == {True, False}


def test_a_method_against_itself():
    y = np.random.default_rng(2).integers(0, 3, (3, 30)) / 2
    result = paired_difference(y, y)
    assert (result.estimate, result.p, result.ties) == (0.0, 1.0, 1.0)
    half = sps.t.ppf(0.975, 29) * math.sqrt(2) / 32  # two more prompts, one won and one lost
    assert result.ci95 == pytest.approx((-half, half))
    assert "hardly any variation" in result.note


def test_constant_difference_has_the_p_of_its_signs():
    assert paired_difference([1, 1, 1, 1], [0, 0, 0, 0]).p == 0.125  # 2 / 2^4: the sign test


def test_two_seeds_are_flagged_and_three_are_not():
    y = np.random.default_rng(3).random((3, 40))
    assert "two seeds" in paired_difference(y[:2], y[1:]).note
    assert paired_difference(y, y[:, ::-1]).note == ""


def test_unmatched_by_hand():
    rng = np.random.default_rng(4)
    a, b = rng.random((3, 12)) + rng.normal(size=12), rng.random((2, 12))
    result = unmatched_difference(a, b)
    p = a.mean(axis=0) - b.mean(axis=0)
    seed_a, seed_b = a.mean(axis=1).var(ddof=1) / 3, b.mean(axis=1).var(ddof=1) / 2
    prompt = p.var(ddof=1) / 12 - mean_squares(a).residual / 36 - mean_squares(b).residual / 24
    assert prompt > 0
    q = [sps.t.ppf(0.975, df) ** 2 for df in (2, 1, 11)]
    h = math.sqrt(q[0] * seed_a + q[1] * seed_b + q[2] * prompt)
    assert result.ci95 == pytest.approx((p.mean() - h, p.mean() + h))
    assert result.k == 2


def test_unmatched_seed_effects_alone_give_welch():
    u, v = np.array([0.1, 0.3, 0.25]), np.array([0.0, 0.05, 0.2])
    result = unmatched_difference(np.repeat(u[:, None], 9, axis=1), np.repeat(v[:, None], 9, axis=1))
    expected = sps.ttest_ind(u, v, equal_var=False)
    assert result.p == pytest.approx(expected.pvalue)
    assert result.df == pytest.approx(expected.df)


def test_unmatched_single_runs_are_the_paired_t_test():
    a, b = [0.9, 0.4, 0.8, 0.3], [0.5, 0.4, 0.6, 0.5]
    assert unmatched_difference(a, b).ci95 == pytest.approx(paired_difference(a, b).ci95)


def test_win_rate_counts():
    w = win_rate([[1, 0.5, 0, 0], [1, 1, 0.5, 0.25]])
    assert (w.estimate, w.wins, w.ties, w.losses) == (4.25 / 8, 3 / 8, 2 / 8, 3 / 8)
    assert w.per_seed == (0.375, 0.6875)
    assert (w.n, w.k) == (4, 2)


def test_win_rate_of_one_seed_is_wilson():
    assert win_rate([1] * 70 + [0] * 30).ci95 == pytest.approx(wilson(0.7, 100))
    close = win_rate([1] * 60 + [0] * 40)  # Wilson's begins at 50.2 %, but 60 of 100 or more are 2.8 % likely by chance
    assert close.p == pytest.approx(2 * sum(math.comb(100, i) for i in range(60, 101)) / 2**100)
    assert close.ci95 == pytest.approx((0.5, wilson(0.6, 100)[1]))


def test_win_rate_of_seeds_is_near_the_symmetric_interval_and_inside_the_unit():
    y = (np.random.default_rng(5).random((5, 400)) < 0.5).astype(float)
    low, high = win_rate(y).ci95
    symmetric = paired_difference(y, np.zeros_like(y)).ci95
    assert (low, high) == pytest.approx(symmetric, abs=2e-3)
    few = np.zeros((3, 8))
    few[0, 0] = 1
    low, high = win_rate(few).ci95
    assert 0.0 <= low < 1 / 24 < high <= 1.0


def test_win_rate_of_only_wins():
    w = win_rate(np.ones((3, 10)))
    assert w.ci95 == pytest.approx(wilson(1.0, 10))
    assert w.ci95_prompts_only == pytest.approx(soft_wilson([1.0] * 10))
    assert "two prompts that were not seen" in w.note


def test_variance_part_of_prompts_is_never_negative():
    d = np.array([[1.0, -1.0], [-1.0, 1.0]])  # all residual
    assert [c.variance for c in variance_components(d)] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: win_rate([1.7, 1.2]), r"\[1.2, 1.7\]"),
        (lambda: win_rate([1.0, math.nan]), "not finite"),
        (lambda: win_rate([[1, 0], [1]]), "rectangular"),
        (lambda: win_rate([]), "at least 1"),
        (lambda: paired_difference([3.0], [1.5]), "at least 2"),
        (lambda: win_rate(np.zeros((2, 2, 2))), "shape"),
        (lambda: paired_difference([1, 0, 1], [1, 0]), "shapes differ"),
        (lambda: unmatched_difference([[1, 0, 1]] * 2, [[1, 0]] * 3), "3 and 2 prompts"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(UserError, match=says):
        call()
