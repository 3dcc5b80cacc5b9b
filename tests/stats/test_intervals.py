"""Intervals of one mean against published literals, scipy and direct formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps

from evenhand.errors import UserError
from evenhand.stats.bootstrap import bca_interval, crossed_interval, percentile_interval
from evenhand.stats.intervals import (
    Component,
    clustered_se,
    half_width,
    satterthwaite,
    score_interval,
    score_p,
    score_part,
    soft_wilson,
    t_interval,
    two_sided_p,
    wilson,
)


@pytest.mark.parametrize(("wins", "n"), [(0, 10), (1, 7), (15, 30), (29, 30), (30, 30), (402, 805)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(wins, n, level):
    expected = sps.binomtest(wins, n).proportion_ci(level, method="wilson")
    assert wilson(wins / n, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_literal_of_newcombe_1998():
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Statist. Med. 17, 857, table I


def test_wilson_touches_the_ends_exactly():
    assert wilson(0.0, 5)[0] == 0.0
    assert wilson(1.0, 5)[1] == 1.0


def test_soft_wilson_of_plain_outcomes_is_wilson():
    assert soft_wilson([1] * 7 + [0] * 13) == pytest.approx(wilson(0.35, 20))


def test_ties_narrow_the_interval_by_their_smaller_variance():
    # 5 wins, 10 ties, 5 losses: w = 1/2 and variance 1/8 instead of 1/4, so n_eff = 2 n; Student's quantile for the normal one.
    as_normal = 40 * (sps.norm.ppf(0.975) / sps.t.ppf(0.975, 19)) ** 2
    assert soft_wilson([1] * 5 + [0.5] * 10 + [0] * 5) == pytest.approx(wilson(0.5, as_normal))


def test_soft_wilson_without_spread():
    # the variance of nine ties is taken for that of two more outcomes, a win and a loss: 0.5 / 11
    n_eff = 0.25 * 9 / (0.5 / 11) * (sps.norm.ppf(0.975) / sps.t.ppf(0.975, 8)) ** 2
    assert soft_wilson([0.5] * 9) == pytest.approx(wilson(0.5, n_eff))
    assert soft_wilson([0.0] * 9) == pytest.approx(wilson(0.0, 9))


def test_score_interval_of_a_z_interval_is_wilson():
    share, n, z = 0.3, 50, sps.norm.ppf(0.975)
    assert score_interval(share, z**2 / n) == pytest.approx(wilson(share, n))
    assert score_interval(share, math.inf) == (0.0, 1.0)


def test_score_p_is_where_wilson_touches_one_half():
    part = score_part(np.array([1.0] * 60 + [0.0] * 40))
    level = 1 - score_p(0.6, part)
    assert score_interval(0.6, half_width([part], level) ** 2)[0] == pytest.approx(0.5, abs=1e-9)
    assert score_p(0.6, part) == pytest.approx(2 * sps.norm.sf(2.0))  # (.6 - .5) / sqrt(.25 / 100)


def test_t_interval_is_scipys():
    x = [0.3, 0.1, 0.9, 0.4, 0.4]
    expected = sps.t.interval(0.95, 4, loc=np.mean(x), scale=sps.sem(x))
    assert t_interval(x) == pytest.approx(expected)


def test_half_width_adds_each_part_with_its_own_quantile():
    # t quantiles from tables: 12.706 (1 df), 2.262 (9 df)
    expected = math.sqrt(12.706**2 * 0.04 + 2.262**2 * 0.25)
    assert half_width([Component(0.04, 1), Component(0.25, 9)]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("df", [1, 2, 7, 500])
@pytest.mark.parametrize("t", [0.01, 1.0, 3.5, 40.0])
def test_p_of_one_part_is_the_t_test(df, t):
    assert two_sided_p(t * 0.2, [Component(0.04, df)]) == pytest.approx(2 * sps.t.sf(t, df), rel=1e-9)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_p_and_interval_agree(level):
    parts = [Component(0.3, 2), Component(0.1, 50)]
    assert two_sided_p(half_width(parts, level), parts) == pytest.approx(1 - level, rel=1e-9)


def test_p_of_nothing_is_one():
    assert two_sided_p(0.0, [Component(0.0, 3)]) == 1.0


def test_satterthwaite_of_welch():
    a, b = np.array([1.0, 2.0, 4.0, 8.0]), np.array([3.0, 5.0, 4.0])
    parts = [Component(x.var(ddof=1) / len(x), len(x) - 1) for x in (a, b)]
    assert satterthwaite(parts) == pytest.approx(sps.ttest_ind(a, b, equal_var=False).df)


def test_clustered_se_of_singletons_is_the_plain_one():
    x = [0.2, 0.7, 0.1, 0.9, 0.4]
    assert clustered_se(x, range(5)) == pytest.approx(sps.sem(x))


def test_clustered_se_of_copies_does_not_shrink():
    x = [0.2, 0.7, 0.1, 0.9, 0.4]
    assert clustered_se(x * 6, list(range(5)) * 6) == pytest.approx(clustered_se(x, range(5)))


def test_clustered_se_needs_two_clusters():
    with pytest.raises(UserError, match="one cluster"):
        clustered_se([1.0, 2.0], "aa")


@pytest.mark.parametrize("interval", [t_interval, percentile_interval, bca_interval, soft_wilson])
def test_nan_is_refused_and_counted(interval):
    with pytest.raises(UserError, match="1 of 3 values are not finite"):
        interval([0.1, math.nan, 0.3])


SKEWED = np.random.default_rng(3).exponential(size=60)


def test_percentile_bootstrap_agrees_with_scipy():
    expected = sps.bootstrap((SKEWED,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert percentile_interval(SKEWED, draws=20_000) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_bca_bootstrap_agrees_with_scipy_and_not_with_percentile():
    expected = sps.bootstrap((SKEWED,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    ours = bca_interval(SKEWED, draws=20_000)
    assert ours == pytest.approx((expected.low, expected.high), abs=0.012)
    assert ours[1] - percentile_interval(SKEWED, draws=20_000)[1] > 0.02  # it leans towards the long tail


def test_bootstrap_is_keyed():
    assert percentile_interval(SKEWED, draws=200, seed=4) == percentile_interval(SKEWED, draws=200, seed=4)
    assert percentile_interval(SKEWED, draws=200, seed=4) != percentile_interval(SKEWED, draws=200, seed=5)


def test_bca_of_constants_has_no_width():
    assert bca_interval([2.0, 2.0, 2.0], draws=50) == (2.0, 2.0)


def test_crossed_bootstrap_of_one_seed_is_over_prompts():
    assert crossed_interval([SKEWED], draws=300) == percentile_interval(SKEWED, draws=300)


def test_crossed_bootstrap_has_the_two_way_variance():
    """Seed effects only: the deviation's variance is that of a mean of k seeds, (k/(k-1)) times the resampling variance."""
    effects = np.array([-0.3, 0.1, 0.0, 0.2])
    low, high = crossed_interval(np.repeat(effects[:, None], 30, axis=1), draws=20_000)
    spread = (high - low) / (2 * 1.96)
    assert spread == pytest.approx(sps.sem(effects), rel=0.06)
