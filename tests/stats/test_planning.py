"""Planned power is that of the verdict: against whole tables simulated and judged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as sps
from scipy.special import expit

from evenhand.errors import UserError
from evenhand.stats.crossed import spread
from evenhand.stats.planning import minimum_detectable_difference, planned_resolution, power, prompts_needed, resolved_by
from evenhand.stats.tests import verdict
from evenhand.stats.twoway import paired_difference


def judged_share(draw, difference: float, k: int, n: int, parts: dict[str, float], studies: int) -> float:
    """How often `verdict` calls a true difference better, over whole tables."""
    found = 0
    for _ in range(studies):
        u = parts["sd_seed"] * draw.normal(size=(k, 1))
        v = parts["sd_prompt"] * draw.normal(size=(1, n))
        d = difference + u + v + parts["sd_noise"] * draw.normal(size=(k, n))
        found += verdict(paired_difference(d, np.zeros_like(d))) == "better"
    return found / studies


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_power_is_the_share_of_verdicts(k: int) -> None:
    """The sds of a judged pilot; 80 % promised is 80 % found, two seeds included (sampling error of 700 studies: 1.5 points)."""
    parts = {"sd_noise": 0.6, "sd_prompt": 0.2, "sd_seed": 0.0 if k == 1 else 0.03}
    reach = planned_resolution(60, k, **parts)
    assert power(reach, 60, k, **parts) == pytest.approx(0.8, abs=0.002)
    found = judged_share(np.random.default_rng(k), reach, k, 60, parts, 700)
    assert found == pytest.approx(0.8, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "n"), [(2, 50), (3, 128), (5, 128), (8, 500)])
def test_power_from_a_pilots_parts_holds_for_wins_and_losses(k: int, n: int) -> None:
    """Two arms of right and wrong answers: the parts of a large pilot promise what 2000 studies find, within 3 points."""
    draw = np.random.default_rng(n)

    def arms(k: int, n: int):
        prompts = draw.normal(size=n)
        own = [draw.normal(0, 0.25, (k, 1)) + prompts + draw.normal(0, 0.5, n) for _ in range(2)]
        return [(draw.random((k, n)) < expit(x + shift)).astype(float) for x, shift in zip(own, (0.9, 0.0), strict=True)]

    a, b = arms(300, 3000)
    parts, true = spread(a - b), float((a - b).mean())
    promised = power(true, n, k, sd_noise=parts.noise, sd_prompt=parts.prompt, sd_seed=parts.seed, gap=1.0)
    found = np.mean([verdict(paired_difference(*arms(k, n))) == "better" for _ in range(2000)])
    assert promised == pytest.approx(found, abs=0.03)


def test_one_run_of_many_prompts_is_the_normal_formula() -> None:
    z = sps.norm.ppf(0.975) + sps.norm.ppf(0.8)
    assert planned_resolution(5000, 1, sd_noise=1.0) == pytest.approx(z / math.sqrt(5000), rel=0.02)
    assert minimum_detectable_difference(5000, 1, sd_prompt=1.0) == pytest.approx(z / math.sqrt(5000), rel=1e-6)
    rng = np.random.default_rng(5)
    d = rng.normal(size=5000)
    assert resolved_by(paired_difference(d, np.zeros(5000))) == pytest.approx(z * d.std(ddof=1) / math.sqrt(5000), rel=0.02)


def test_many_seeds_reach_the_limit_and_few_do_not() -> None:
    parts = {"sd_prompt": 0.6, "sd_seed": 0.02}
    limit = [minimum_detectable_difference(400, k, **parts) for k in (3, 60)]
    real = [planned_resolution(400, k, sd_noise=0.0, **parts) for k in (3, 60)]
    assert real[1] == pytest.approx(limit[1], rel=0.03)
    assert real[0] > 1.02 * limit[0]


def test_what_is_resolved_is_what_is_planned() -> None:
    """A study whose mean squares are exactly the planned parts."""
    rng, k, n = np.random.default_rng(0), 3, 50
    d = 0.05 * rng.normal(size=(k, 1)) + 0.4 * rng.normal(size=(1, n)) + 0.5 * rng.normal(size=(k, n))
    found = paired_difference(d, np.zeros_like(d))
    parts = {"sd_seed": found.spread.seed, "sd_prompt": found.spread.prompt, "sd_noise": found.spread.noise}
    assert resolved_by(found) == planned_resolution(n, k, **parts)
    assert resolved_by(found, contrasts=4) == planned_resolution(n, k, **parts, contrasts=4) > resolved_by(found)


def test_the_spread_of_a_table_is_what_it_was_made_of() -> None:
    rng = np.random.default_rng(1)
    d = 0.3 * rng.normal(size=(400, 1)) + 0.2 * rng.normal(size=(1, 400)) + 0.5 * rng.normal(size=(400, 400))
    found = spread(d)
    assert (found.seed, found.prompt, found.noise) == pytest.approx((0.3, 0.2, 0.5), rel=0.1)
    assert spread(d[:1]).noise == pytest.approx(math.hypot(0.2, 0.5), rel=0.1)


def test_prompts_needed_inverts_the_resolution() -> None:
    n = prompts_needed(0.05, sd_noise=0.6)
    assert 1100 <= n <= 1200
    assert planned_resolution(n, 1, sd_noise=0.6) <= 0.05 < planned_resolution(int(n * 0.95), 1, sd_noise=0.6)
    assert prompts_needed(0.1, sd_noise=0.6, contrasts=5) > prompts_needed(0.1, sd_noise=0.6)


def test_seeds_that_hide_a_difference_are_named() -> None:
    with pytest.raises(UserError, match=r"no number of prompts resolves 0\.04 with 3 seeds") as told:
        prompts_needed(0.04, sd_noise=0.6, seeds=3, sd_seed=0.02)
    more = int(str(told.value.fix).split("at least ")[1].split()[0])
    assert 4 <= more <= 6  # the normal formula says 2; few seeds need their Student quantile
    assert prompts_needed(0.04, sd_noise=0.6, seeds=more, sd_seed=0.02) > 1000
    with pytest.raises(UserError, match=r"resolves 0\.02") as told:  # one sd of a seed: some always disagree
        prompts_needed(0.02, sd_noise=0.6, seeds=3, sd_seed=0.02)
    assert "larger difference" in str(told.value.fix)


def test_against_one_half_the_score_test_asks_for_more() -> None:
    """Two seeds of wins: half-widths above 1/4 exclude one half at no win rate, so nothing is resolved."""
    y = (np.random.default_rng(3).random((2, 40)) < [[0.5], [0.75]]).astype(float)
    assert resolved_by(paired_difference(y, np.full_like(y, 0.5))) == math.inf
    many = (np.random.default_rng(4).random((5, 400)) < 0.5).astype(float)
    found = paired_difference(many, np.full_like(many, 0.5))
    parts = {"sd_noise": found.spread.noise, "sd_prompt": found.spread.prompt, "sd_seed": found.spread.seed, "gap": 1.0}
    plain = planned_resolution(400, 5, **parts)
    assert plain <= resolved_by(found) == pytest.approx(plain, rel=0.05)


@pytest.mark.parametrize(("k", "n"), [(1, 50), (2, 12), (3, 200)])
def test_outcomes_that_never_vary_leave_half_their_interval_open(k: int, n: int) -> None:
    """All ties: the interval says that something may have been missed, and so must the resolution."""
    ties = np.full((k, n), 0.5)
    found = paired_difference(ties, ties)
    assert resolved_by(found) == pytest.approx(found.ci95[1])
    assert resolved_by(found, contrasts=3) == pytest.approx(found.interval(1 - 0.05 / 3)[1])
    assert resolved_by(found) > 0.0
