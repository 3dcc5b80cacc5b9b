"""The binomial mixed model: against its own integral, what it reduces to, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, logit

from evenhand.errors import UserError
from evenhand.stats.mixed import mixed_win_rate
from evenhand.stats.twoway import win_rate


def studies(rng, k: int, n: int, eta: float, seed_sd: float, prompt_sd: float) -> np.ndarray:
    x = eta + seed_sd * rng.normal(size=(k, 1)) + prompt_sd * rng.normal(size=(1, n))
    return (rng.random((k, n)) < expit(x)).astype(float)


def test_many_seeds_and_prompts_give_the_truth_back() -> None:
    rng = np.random.default_rng(0)
    fit = mixed_win_rate(studies(rng, 8, 1500, 1.0, 0.8, 1.3))
    assert fit.prompt_sd == pytest.approx(1.3, abs=0.15)
    assert 0.4 < fit.seed_sd < 1.3
    mean, _ = quad(lambda z: expit(1.0 + np.hypot(0.8, 1.3) * z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi), -8, 8)
    low, high = fit.interval()
    assert low < mean < high


def test_seeds_that_do_not_differ_give_about_the_prompt_interval() -> None:
    rng = np.random.default_rng(1)
    y = studies(rng, 8, 400, 0.3, 0.0, 1.0)
    fit, two_way = mixed_win_rate(y), win_rate(y).ci95_two_way
    assert fit.estimate == pytest.approx(float(y.mean()), abs=0.01)
    assert fit.interval()[1] - fit.interval()[0] == pytest.approx(two_way[1] - two_way[0], rel=0.35)


def test_wins_and_losses_mirror_each_other() -> None:
    y = studies(np.random.default_rng(2), 4, 60, 1.5, 0.5, 1.0)
    one, other = mixed_win_rate(y), mixed_win_rate(1.0 - y)
    assert one.estimate == pytest.approx(1.0 - other.estimate, abs=2e-3)
    assert one.interval() == pytest.approx((1.0 - other.interval()[1], 1.0 - other.interval()[0]), abs=2e-3)


def test_intervals_are_nested_by_level() -> None:
    fit = mixed_win_rate(studies(np.random.default_rng(3), 3, 50, 1.0, 1.0, 1.0))
    wide, narrow = fit.interval(0.99), fit.interval(0.9)
    assert wide[0] < narrow[0] < fit.estimate < narrow[1] < wide[1]


def test_one_failed_seed_pulls_further_than_on_the_scale_of_shares() -> None:
    """Seven seeds near 99 % and one at 70 %: another like it must be expected."""
    rng = np.random.default_rng(4)
    y = (rng.random((8, 300)) < np.array([[0.99]] * 7 + [[0.7]])).astype(float)
    won = win_rate(y)
    assert won.mixed is not None
    assert won.mixed.interval()[0] < won.ci95_two_way[0]
    assert won.ci95[0] == pytest.approx(won.mixed.interval()[0])
    assert won.ci95[1] >= won.ci95_two_way[1]


def test_with_few_seeds_it_stands_beside_and_is_not_shown() -> None:
    y = studies(np.random.default_rng(5), 3, 80, 1.0, 0.5, 1.0)
    won = win_rate(y)
    assert won.mixed is not None
    assert won.ci95 == won.ci95_two_way
    assert win_rate(np.random.default_rng(6).random((5, 40))).mixed is None  # graded outcomes are no wins and losses


def test_one_seed_is_refused_and_all_wins_are_not() -> None:
    with pytest.raises(UserError, match="one seed"):
        mixed_win_rate([1.0, 0.0, 1.0])
    low, high = mixed_win_rate(np.ones((5, 100))).interval()
    assert 0.8 < low < high <= 1.0
    assert logit(high) > 4
