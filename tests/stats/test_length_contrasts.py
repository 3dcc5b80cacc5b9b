"""Differences at equal length: what they equal, and that their intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit

from evenhand.stats.length import NO_PRIOR
from evenhand.stats.length_contrasts import at_equal_length, length_controlled_difference, the_baseline


def study(
    rng: np.random.Generator, ability: float, *, longer: float, k: int = 3, n: int = 120, sd_seed: float = 0.0, phi: float = -1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes [k, n] of a judge that pays for length, lengths of the model (mean `longer` above) and of the baseline."""
    baseline = np.tile(rng.normal(300, 60, n), (k, 1))
    model = baseline + rng.normal(longer, 80, (k, n))
    gap = baseline - model
    seeds = rng.normal(0, sd_seed, (k, 1))
    return (rng.random((k, n)) < expit(ability + seeds + phi * np.tanh(gap / gap.std(ddof=1)))).astype(float), model, baseline


def test_equal_methods_of_which_one_writes_more_differ_raw_but_not_at_equal_length() -> None:
    rng = np.random.default_rng(0)
    short, long = study(rng, 0.0, longer=0, n=600), study(rng, 0.0, longer=100, n=600)
    raw = long[0].mean() - short[0].mean()
    found = length_controlled_difference(at_equal_length(*long, draws=100), at_equal_length(*short, draws=100))
    assert found is not None
    assert raw > 0.1, "the judge pays for length"
    assert abs(found.estimate) < 0.06
    assert abs(found.estimate) < raw / 2, "without difficulties the effect of length is held near none: it corrects in part"
    plain = [at_equal_length(*arm, prior=NO_PRIOR, draws=100) for arm in (long, short)]
    free = length_controlled_difference(*plain)
    assert free is not None
    assert free.ci95[0] < 0 < free.ci95[1]
    assert free.p > 0.05


def test_the_baseline_is_one_half_and_the_difference_is_antisymmetric() -> None:
    rng = np.random.default_rng(1)
    table = at_equal_length(*study(rng, 1.0, longer=0), draws=60)
    base = the_baseline(3, 120, 60)
    one, other = length_controlled_difference(table, base), length_controlled_difference(base, table)
    assert one is not None
    assert other is not None
    assert one.estimate == pytest.approx(table.estimate - 0.5)
    assert (other.estimate, other.p) == (-one.estimate, one.p)
    assert other.ci95 == pytest.approx((-one.ci95[1], -one.ci95[0]))
    assert (one.p < 0.05) == (not one.ci95[0] <= 0 <= one.ci95[1])
    same = length_controlled_difference(table, table)
    assert same is not None
    assert (same.estimate, same.p) == (0.0, 1.0)


def test_where_length_control_is_refused_there_is_no_difference() -> None:
    ones = np.ones((2, 30))
    lengths = np.arange(60.0).reshape(2, 30)
    refused = at_equal_length(ones, lengths, lengths[::-1], draws=20)
    assert math.isnan(refused.estimate)
    assert length_controlled_difference(refused, the_baseline(2, 30, 20)) is None


def test_one_seed_gives_the_prompt_interval_alone() -> None:
    rng = np.random.default_rng(2)
    y, model, baseline = study(rng, 0.5, longer=20, k=1)
    table = at_equal_length(y, model, baseline, draws=200)
    found = length_controlled_difference(table, the_baseline(1, 120, 200))
    assert found is not None
    width, bootstrap = found.ci95[1] - found.ci95[0], np.subtract(*np.quantile(table.draws, (0.975, 0.025)))
    assert width == pytest.approx(bootstrap, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("sd_seed", [0.0, 0.3])
def test_intervals_cover_when_seeds_vary_and_lengths_differ(sd_seed: float) -> None:
    """No true difference at equal length; 300 studies of three seeds. 93 to 98 %, within sampling error."""
    rng, covered, studies = np.random.default_rng(3), 0, 300
    for _ in range(studies):
        a = at_equal_length(*study(rng, 0.2, longer=60, sd_seed=sd_seed), draws=60)
        b = at_equal_length(*study(rng, 0.2, longer=-20, sd_seed=sd_seed), draws=60)
        found = length_controlled_difference(a, b)
        assert found is not None
        covered += found.ci95[0] <= 0 <= found.ci95[1]
    error = 2.6 * math.sqrt(0.05 * 0.95 / studies)
    assert 0.93 - error < covered / studies < 0.98 + error
