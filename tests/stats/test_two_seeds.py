"""Two seeds that agree: the tables on which an interval once had no width, and what stands in its place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evenhand.stats.arrays import Array
from evenhand.stats.family import judged
from evenhand.stats.length_contrasts import at_equal_length, length_controlled_difference, the_baseline
from evenhand.stats.planning import resolved_by
from evenhand.stats.tests import equivalence_p, equivalent, permutation_test, verdict
from evenhand.stats.twoway import paired_difference, unmatched_difference, win_rate


def outcomes(n: int, digits: str) -> list[float]:
    """Wins (1) and losses (0) of n prompts from hexadecimal digits."""
    return [float(bit) for bit in f"{int(digits, 16):0{n}b}"]


EQUAL_MEANS = (
    outcomes(128, "7ef5fb5a3d382d00b930af9ed65a9e4c"),
    outcomes(128, "ef0c4c636bc4caaf4ffb189a4f15ba73"),
)
"""128 prompts, 70 wins each: a mean of +4.7 points against one half whose variance parts were all 0."""
EQUAL_UP_TO_ROUNDING = (
    outcomes(
        500,
        "a3fab8aa6ded7f0dfbd432e9be1fd7b034ff5fd8f3f7697dafa98dd08156ff9e17e8e6a4823bf9cd678dff5b57fde3ecbdf7"
        "2b89d574afa99016798a8ab56",
    ),
    outcomes(
        500,
        "fc7af65c2099fdfde9d48fe7c93bec9fec7defb9a6f842f4badd44cff27ec22ebb5c63875d9cf995f4fae73d7efaef3520d4"
        "10ab2e1e73da3f76575e3384f",
    ),
)
"""500 prompts, 298 wins each, means that differ in the last bit: once an OverflowError."""


@pytest.fixture(params=[EQUAL_MEANS, EQUAL_UP_TO_ROUNDING], ids=["equal means", "equal up to rounding"])
def table(request: pytest.FixtureRequest) -> Array:
    return np.array(request.param)


def test_the_seeds_agree(table: Array) -> None:
    assert table[0].sum() == table[1].sum()


def test_no_interval_is_narrower_and_no_p_smaller_than_that_of_the_prompts(table: Array) -> None:
    even = np.full_like(table, 0.5)
    for result in (paired_difference(table, even), paired_difference(table + 2.0, even + 2.0), unmatched_difference(table, even)):
        low, high = result.ci95
        inner_low, inner_high = result.ci95_prompts_only
        assert low <= inner_low < inner_high <= high
        one_seed_as_good = paired_difference(table.mean(axis=0) + 2.0, even[0] + 2.0)
        assert result.p >= one_seed_as_good.p * 0.99
        assert resolved_by(result) > abs(result.estimate)


def test_equal_means_are_inconclusive() -> None:
    table = np.array(EQUAL_MEANS)
    result = paired_difference(table, np.full_like(table, 0.5))
    assert verdict(result) == "inconclusive"
    assert 0.05 < result.p < 0.2
    assert permutation_test(table.mean(axis=0) - 0.5) == pytest.approx(0.13, abs=0.04)
    assert judged([result] * 3, ["declared"] * 3)[0].p_holm == pytest.approx(3 * result.p)
    assert not equivalent(result, 0.05)
    assert equivalence_p(result, 0.05) > 0.05


def test_equal_seeds_pay_for_the_lattice_of_wins() -> None:
    """Half a win's difference between two seeds of n prompts is their sd 1 / (n sqrt 8): t_1 x that / sqrt 2 at least."""
    table = np.array(EQUAL_UP_TO_ROUNDING)
    result = paired_difference(table, np.full_like(table, 0.5))
    seeds = result.components[0]
    assert seeds.df == 1
    assert math.sqrt(seeds.variance) >= 1 / (500 * math.sqrt(8)) / math.sqrt(2) - 1e-12
    assert 1e-4 < result.p < 0.05


def test_at_equal_length_two_equal_seeds_have_a_width_too() -> None:
    y = np.tile(np.array(EQUAL_MEANS)[0], (2, 1))
    lengths = 300.0 + 40.0 * np.random.default_rng(0).normal(size=y.shape[1])
    found = length_controlled_difference(
        at_equal_length(y, np.tile(lengths, (2, 1)), np.full(y.shape, 300.0), draws=100), the_baseline(2, y.shape[1], 100)
    )
    assert found is not None
    prompts_only = found.interval(0.95)
    assert prompts_only[1] - prompts_only[0] > 0.1
    assert found.p > 1e-3


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 2, 20, 500])
def test_constant_outcomes_have_a_width_everywhere(k: int, value: float, n: int) -> None:
    y = np.full((k, n), value)
    won = win_rate(y)
    assert won.ci95[1] - won.ci95[0] > 1 / (n + 3)
    assert won.ci95_prompts_only[1] - won.ci95_prompts_only[0] > 1 / (n + 3)
    against = paired_difference(y, np.full((k, n), 1.0 - value))
    assert against.ci95[1] - against.ci95[0] > 1 / (n + 3)
    assert against.p >= 2.0 ** (1 - n)
    assert (against.p < 0.05) == (not against.ci95[0] <= 0.0 <= against.ci95[1])


def test_rewards_that_never_vary_have_a_width() -> None:
    for a, b in (([3.0] * 8, [1.0] * 8), ([7.5] * 8, [7.5] * 8), ([[3.0] * 8] * 2, [[1.0] * 8] * 2)):
        result = paired_difference(a, b)
        assert result.ci95[1] - result.ci95[0] > 0.1


def test_one_prompt_decides_nothing() -> None:
    result = paired_difference([[1.0], [1.0]], [[0.0], [0.0]])
    assert (result.ci95, result.p, verdict(result)) == ((-1.0, 1.0), 1.0, "inconclusive")
    assert win_rate([[1.0], [1.0]]).ci95 == (0.0, 1.0)
    assert "one prompt" in result.note


def test_a_win_rate_and_its_difference_from_one_half_are_one_quantity() -> None:
    rng = np.random.default_rng(4)
    for shift in np.linspace(0.5, 0.9, 9):
        y = (rng.random((3, 60)) < shift).astype(float)
        won, less = win_rate(y), paired_difference(y, np.full_like(y, 0.5))
        assert less.ci95 == pytest.approx((won.ci95[0] - 0.5, won.ci95[1] - 0.5))
        assert (won.p, won.estimate - 0.5) == (less.p, pytest.approx(less.estimate))
        assert (won.p < 0.05) == (not won.ci95[0] <= 0.5 <= won.ci95[1])
        back = paired_difference(np.full_like(y, 0.5), y)
        assert back.ci95 == pytest.approx((-less.ci95[1], -less.ci95[0]))
