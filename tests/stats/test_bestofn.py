"""Best-of-n against brute-force enumeration of subsets, closed forms, and real judged samples."""

from __future__ import annotations

import gzip
import itertools
import json
import math

import numpy as np
import pytest

from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.stats.bestofn import best_of_n, exact_best_of_n, kl_bound, order_weights, win_rate_bound


def enumerated(reward, gold, n):
    """Mean over all subsets of n samples of the gold of a best one (the mean over ties)."""
    values = []
    for subset in itertools.combinations(range(len(reward)), n):
        top = max(reward[i] for i in subset)
        best = [gold[i] for i in subset if reward[i] == top]
        values.append(sum(best) / len(best))
    return sum(values) / len(values)


@pytest.mark.parametrize("levels", [3, 1000])  # many ties, almost none
def test_every_subset_is_counted(levels):
    draw = np.random.default_rng(levels)
    reward, gold = draw.integers(levels, size=(4, 7)).astype(float), draw.random((4, 7))
    curve = best_of_n(reward, gold)
    for point in curve:
        expected = np.mean([enumerated(r, g, point.n) for r, g in zip(reward, gold, strict=True)])
        assert point.gold == pytest.approx(expected), point.n


def test_ends_of_the_curve():
    reward, gold = np.array([[1.0, 5.0, 3.0], [2.0, 1.0, 0.0]]), np.array([[0.1, 0.9, 0.2], [0.4, 0.6, 0.8]])
    curve = best_of_n(reward, gold)
    assert [p.n for p in curve] == [1, 2, 3]
    assert curve[0].gold == pytest.approx(gold.mean())
    assert curve[-1].gold == pytest.approx((0.9 + 0.4) / 2)
    assert curve[-1].reward == pytest.approx((5.0 + 2.0) / 2)


def test_all_tied_is_a_random_choice():
    assert [p.gold for p in best_of_n([[1.0] * 4], [[0.0, 0.0, 1.0, 1.0]])] == pytest.approx([0.5] * 4)


def test_order_of_samples_does_not_matter():
    draw = np.random.default_rng(7)
    reward, gold = draw.integers(4, size=(3, 6)).astype(float), draw.random((3, 6))
    shuffle = draw.permutation(6)
    first, second = best_of_n(reward, gold), best_of_n(reward[:, shuffle], gold[:, shuffle])
    assert [p.gold for p in first] == pytest.approx([p.gold for p in second])


def test_weights_are_a_distribution_for_large_sample_counts():
    assert order_weights(2000, 700).sum() == pytest.approx(1.0, abs=1e-9)
    with pytest.raises(UserError, match="12 of 11"):
        order_weights(11, 12)


def test_bounds_hold_with_equality_without_ties():
    p = np.full(400, 1 / 400)
    q = exact_best_of_n(p, np.arange(400), 8)
    assert q.sum() == pytest.approx(1.0)
    assert (q * np.log(q / p)).sum() == pytest.approx(1.2044, abs=1e-3)
    assert kl_bound(8) == pytest.approx(1.2044, abs=1e-4)
    wins = sum(q[i] * (i + 0.5) / 400 for i in range(400))
    assert wins == pytest.approx(win_rate_bound(8), abs=1e-3)


def test_few_outputs_stay_below_the_bound():
    p = np.array([0.5, 0.5])
    q = exact_best_of_n(p, [0.0, 1.0], 8)
    assert q == pytest.approx([0.5**8, 1 - 0.5**8])
    assert (q * np.log(q / p)).sum() < 0.7 < kl_bound(8)


def test_tied_outputs_share_by_probability():
    # Two tied best outputs of mass .2 and .3: P(best-of-2 among them) = 1 - .5^2, split 2 : 3.
    assert exact_best_of_n([0.5, 0.2, 0.3], [0.0, 1.0, 1.0], 2) == pytest.approx([0.25, 0.3, 0.45])


def test_shapes_are_checked():
    with pytest.raises(UserError, match="shapes differ"):
        best_of_n([[1.0, 2.0]], [[1.0, 2.0, 3.0]])


@pytest.fixture
def judged_samples(real_data):
    """(lengths, judge scores) [prompts, 11] of the prompts whose 11 samples are all judged."""
    lengths, scores = [], []
    with gzip.open(real_data / "data" / "pref" / "tulu_13b_11_samples_scored.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if all(s is not None for s in row["scores"]) and len(row["scores"]) == 11:
                lengths.append([len(c) for c in row["completions"]])
                scores.append(row["scores"])
    return np.array(lengths, dtype=float), np.array(scores)


def test_real_samples_match_exact_order_statistics(judged_samples):
    """Length heuristic and random scorer for n = 1..11: the estimate equals the enumeration over all C(11, n) subsets."""
    lengths, gold = judged_samples
    assert len(gold) > 300
    random = rng(0, "scorer").random(gold.shape)
    for reward in (lengths, random):
        for point in best_of_n(reward[:6], gold[:6]):
            expected = np.mean([enumerated(r, g, point.n) for r, g in zip(reward[:6], gold[:6], strict=True)])
            assert point.gold == pytest.approx(expected, abs=1e-12)


def test_real_samples_random_scorer_is_flat_and_the_judge_climbs(judged_samples):
    lengths, gold = judged_samples
    mean = gold.mean()
    oracle, by_length = best_of_n(gold, gold), best_of_n(lengths, gold)
    flat = best_of_n(rng(1, "scorer").random(gold.shape), gold)
    assert oracle[-1].gold == pytest.approx(gold.max(axis=1).mean())
    assert np.all(np.diff([p.gold for p in oracle]) > 0)
    assert all(p.ci95[0] - 1e-9 <= mean <= p.ci95[1] + 1e-9 for p in flat)
    for curve in (flat, by_length):
        assert curve[0].gold == pytest.approx(mean)
        assert all(p.gold <= best.gold for p, best in zip(curve, oracle, strict=True))
    assert math.isclose(oracle[0].gold, by_length[0].gold)
