"""Reward-model metrics by hand and by enumeration; benchmark scores against their published formulas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats as sps

from evenhand.errors import UserError
from evenhand.stats.reward_bench import (
    FOUR_WAY,
    SECTIONS,
    TiesPrompt,
    four_way_correct,
    reward_bench,
    reward_bench_2,
    rm_bench,
    ties_score,
)
from evenhand.stats.reward_model import (
    agreement_by_length,
    calibration,
    expected_calibration_error,
    length_bias,
    length_heatmap,
    pair_metrics,
)


def test_pair_metrics_by_hand():
    m = pair_metrics([2.0, 0.0, 1.0, 1.0], [1.0, 2.0, 1.0, -1.0], [10, 30, 20, 40], [20, 10, 20, 10])
    assert m.accuracy == 2.5 / 4
    assert m.ties == 0.25
    assert m.mean_margin == pytest.approx((1 - 2 + 0 + 2) / 4)
    expected = [math.log1p(math.exp(-1)), math.log1p(math.exp(2)), math.log(2), math.log1p(math.exp(-2))]
    assert m.log_loss == pytest.approx(np.mean(expected))
    assert m.length_correlation == pytest.approx(sps.pearsonr([1, -2, 0, 2], [-10, 20, 0, 30]).statistic)
    assert m.n == 4


def test_pair_metrics_without_or_with_constant_lengths():
    assert math.isnan(pair_metrics([1.0, 2.0], [0.0, 3.0]).length_correlation)
    assert math.isnan(pair_metrics([1.0, 2.0], [0.0, 3.0], [5, 6], [4, 5]).length_correlation)


def test_extreme_margins_stay_finite():
    assert pair_metrics([0.0], [1e4]).log_loss == pytest.approx(1e4)


def test_ece_of_a_calibrated_model_is_small_and_of_an_overconfident_one_is_not():
    draw = np.random.default_rng(0)
    strength = draw.normal(0, 1.5, 50_000)
    sign = np.where(draw.random(50_000) < 1 / (1 + np.exp(-strength)), 1.0, -1.0)
    assert expected_calibration_error(sign * strength) < 0.01
    assert expected_calibration_error(3 * sign * strength) > 0.08


def test_ece_by_hand():
    # confidences sigma(2) = .8808 (right) and .8808 (wrong) share a bin; sigma(.1) = .525 right is in another.
    expected = (2 * abs(0.880797 - 0.5) + abs(0.524979 - 1.0)) / 3
    assert expected_calibration_error([2.0, -2.0, 0.1]) == pytest.approx(expected, abs=1e-6)


def test_calibration_bins_by_hand():
    bins = calibration([0.1, -0.4, 0.7, 0.9, 0.0])
    assert [(b.low, b.high, b.n) for b in bins] == [(0.0, 0.5, 3), (0.5, math.inf, 2)]
    assert [b.observed for b in bins] == pytest.approx([1.5 / 3, 1.0])
    assert bins[0].predicted == pytest.approx(np.mean([1 / (1 + math.exp(-x)) for x in (0.1, 0.4, 0.0)]))


def test_calibration_keeps_every_pair():
    m = np.random.default_rng(1).normal(0, 5, 2000)
    bins = calibration(m)
    assert sum(b.n for b in bins) == 2000
    assert all(a.high <= b.low for a, b in itertools.pairwise(bins))


def test_a_length_lover_is_found_out():
    length_chosen, length_rejected = np.array([10, 50, 30, 30]), np.array([40, 20, 30, 10])
    by = agreement_by_length(length_chosen / 10, length_rejected / 10, length_chosen, length_rejected)
    assert {name: b.observed for name, b in by.items()} == {"shorter": 0.0, "equal": 0.5, "longer": 1.0}
    assert (by["longer"].low, by["longer"].high, by["longer"].n) == (20, 30, 2)


def test_length_bias_within_prompts():
    """Reward 0.02 per token within each prompt, offsets between prompts that would reverse the pooled correlation."""
    lengths = [[100, 200, 300], [1000, 1100, 1200], [5, 5, 5]]
    rewards = [[12.0, 14.0, 16.0], [0.0, 2.0, 4.0], [1.0, 2.0, 3.0]]
    bias = length_bias(rewards, lengths)
    assert bias.correlations == pytest.approx((1.0, 1.0))
    assert bias.mean_correlation == pytest.approx(1.0)
    assert bias.slope == pytest.approx(2.0)
    assert (bias.share_above, bias.skipped, bias.mean_lengths) == (1.0, 1, (200.0, 1100.0))
    pooled = np.corrcoef(np.concatenate(rewards[:2]), np.concatenate(lengths[:2]))[0, 1]
    assert pooled < -0.5


def test_fisher_average():
    r = [[0.0, 1.0, 0.0, 2.0], [3.0, 0.0, 1.0, 0.5]]
    x = [[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]]
    expected = math.tanh(np.mean([math.atanh(sps.pearsonr(a, b).statistic) for a, b in zip(r, x, strict=True)]))
    assert length_bias(r, x).mean_correlation == pytest.approx(expected)


def test_heatmap_counts_every_prompt():
    draw = np.random.default_rng(2)
    bias = length_bias(draw.random((60, 8)), draw.integers(10, 99, (60, 8)))
    counts, down, across = length_heatmap(bias)
    assert counts.shape == (20, 10)
    assert counts.sum() == 60
    assert counts.sum(axis=0) == pytest.approx(np.full(10, 6), abs=2)  # quantile bins
    assert (down[0], down[-1], len(across)) == (-1.0, 1.0, 11)
    with pytest.raises(UserError, match="no prompt"):
        length_heatmap(length_bias([[1.0, 1.0]], [[1, 2]]))


def test_section_sizes_are_the_published_ones():
    assert {name: sum(s.values()) for name, s in SECTIONS.items()} == {
        "Chat": 358,
        "Chat Hard": 456,
        "Safety": 740,
        "Reasoning": 1968,
    }


def test_reward_bench_by_hand():
    scores = {s: 0.5 for section in SECTIONS.values() for s in section}
    scores["math-prm"] = 1.0
    result = reward_bench(scores)
    assert result.sections["Reasoning"] == pytest.approx((984 * 1.0 + 984 * 0.5) / 1968)
    assert result.overall == pytest.approx((3 * 0.5 + 0.75) / 4)
    with_prior = reward_bench({**scores, "anthropic_helpful": 1, "anthropic_hhh": 1, "shp": 0, "summarize": 0})
    assert with_prior.overall == pytest.approx((2 * (3 * 0.5 + 0.75) + 0.5) / 9)


def test_reward_bench_refuses_partial_sections_and_typos():
    with pytest.raises(UserError, match="lacks"):
        reward_bench({"alpacaeval-easy": 1.0})
    with pytest.raises(UserError, match="did you mean 'hep-python'"):
        reward_bench({"hep-pyton": 1.0})


def test_four_way_shares_ties():
    assert [four_way_correct(s) for s in ([3, 1, 2, 0], [1, 1, 1, 1], [0, 1, 0, 0])] == [1.0, 0.25, 0.0]


def test_ties_score_by_hand():
    good = TiesPrompt(ref_correct=[5.0], ref_wrong=[1.0], tied_correct=[5.0, 4.0], tied_wrong=[1.0, 0.0])  # D 1, G 4 and 3
    weak = TiesPrompt(ref_correct=[2.0], ref_wrong=[3.0], tied_correct=[6.0, 2.0], tied_wrong=[1.0])  # D 4, G -1 and 1
    expected = 0.3 * 1.0 + 0.3 * 0.5 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * (math.tanh(3 - 1) + math.tanh(-0.25 - 1)) / 2
    assert ties_score([good, weak]) == pytest.approx(expected)
    flat = TiesPrompt([1.0], [1.0], [1.0, 1.0], [1.0])  # 0/0 counts nothing
    assert ties_score([flat]) == 0.0


def test_reward_bench_2_is_the_plain_mean():
    accuracy = dict.fromkeys(FOUR_WAY, 0.8)
    assert reward_bench_2(accuracy, 0.2).overall == pytest.approx(0.7)
    with pytest.raises(UserError, match="exactly"):
        reward_bench_2({"Math": 1.0}, 0.2)


def test_rm_bench_of_a_style_lover():
    """Scores are style alone (0, 1, 2): right where the chosen answer is dressed up, never otherwise."""
    result = rm_bench([[0.0, 1.0, 2.0]] * 4, [[0.0, 1.0, 2.0]] * 4)
    assert (result.easy, result.normal, result.hard) == (1.0, 0.0, 0.0)
    assert result.matrix == ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0))
    assert rm_bench([[3.0, 3.0, 3.0]], [[0.0, 1.0, 2.0]]).average == 1.0
