"""Contrasts corrected together: the interval goes with the verdict."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as sps

from evenhand.stats.family import judged
from evenhand.stats.looks import look
from evenhand.stats.planning import resolved_by
from evenhand.stats.twoway import paired_difference


def contrasts(shifts: list[float], n: int = 60) -> list:
    rng = np.random.default_rng(0)
    return [paired_difference(rng.normal(shift, 1.0, n), np.zeros(n)) for shift in shifts]


def test_simultaneous_is_bonferronis_t_interval() -> None:
    found = contrasts([0.0, 0.1, 0.0])
    for c, j in zip(found, judged(found, ["all"] * 3), strict=True):
        half = sps.t.ppf(1 - 0.05 / 6, 59) * c.standard_error
        assert j.ci95_simultaneous == pytest.approx((c.estimate - half, c.estimate + half))
        assert j.contrasts == 3


def test_one_contrast_is_itself() -> None:
    (c,) = contrasts([0.5])
    (j,) = judged([c], ["alone"])
    assert (j.p_holm, j.ci95_simultaneous, j.verdict) == (c.p, c.ci95, "better")


def test_a_verdict_and_its_interval_never_disagree() -> None:
    rng, words = np.random.default_rng(1), set()
    for _ in range(60):
        found = contrasts([float(s) for s in rng.normal(0.25, 0.2, 5)])
        for j in judged(found, ["declared", "declared", "searched", "searched", "searched"]):
            low, high = j.ci95_simultaneous
            words.add(j.verdict)
            assert (j.verdict == "inconclusive") == (low <= 0.0 <= high)
            assert (j.verdict == "better") == (low > 0.0)
    assert words >= {"better", "inconclusive"}


def test_holms_later_step_ends_at_zero() -> None:
    """Two contrasts, p = .001 and .04: Holm rejects both, Bonferroni's interval of the second still holds 0."""
    strong, weak = contrasts([1.0, 0.0])
    h = sps.t.ppf(1 - 0.04 / 2, 59) * weak.standard_error
    shifted = paired_difference(np.random.default_rng(5).normal(0, 1, 60), np.zeros(60))
    moved = paired_difference(_with_mean(60, sps.t.ppf(1 - 0.04 / 2, 59) / np.sqrt(60)), np.zeros(60))
    assert h > 0
    assert shifted.n == 60
    assert moved.p == pytest.approx(0.04)
    first, second = judged([strong, moved], ["all", "all"])
    assert (first.verdict, second.verdict) == ("better", "better")
    assert 0.0 < second.ci95_simultaneous[0] < 1e-9
    assert moved.interval(0.975)[0] < 0.0


def _with_mean(n: int, mean: float) -> np.ndarray:
    """n values with this mean and sd 1."""
    x = np.random.default_rng(9).normal(size=n)
    return (x - x.mean()) / x.std(ddof=1) + mean


def test_less_alpha_needs_more() -> None:
    c = paired_difference(_with_mean(60, sps.t.ppf(1 - 0.02 / 2, 59) / np.sqrt(60)), np.zeros(60))
    assert c.p == pytest.approx(0.02)
    assert [judged([c], ["x"], alpha=a)[0].verdict for a in (0.05, 0.019)] == ["better", "inconclusive"]


@pytest.mark.parametrize("designs", [[(2, 20)], [(5, 1000), (3, 1000)]])
def test_a_look_that_may_err_next_to_nothing_claims_nothing_and_does_not_end_the_run(designs: list[tuple[int, int]]) -> None:
    """A look at a small share of the plan, or at less than was seen before, has a level of 1 to the last digit."""
    alpha = look(designs, planned=(10, 2000)).alpha
    assert 1.0 - alpha == 1.0
    rate = paired_difference(np.ones((3, 40)), np.full((3, 40), 0.5))
    for c in (rate, *contrasts([0.0, 5.0])):
        (j,) = judged([c], ["alone"], alpha=alpha)
        assert j.verdict == "inconclusive"
        assert j.ci95_simultaneous[0] <= 0.0 <= j.ci95_simultaneous[1]
        assert resolved_by(c, alpha=alpha) == np.inf
