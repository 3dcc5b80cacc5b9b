"""Style counts by hand, and control that Arena-Hard's centring would miss."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from evenhand.errors import UserError
from evenhand.stats.style import Style, arena_hard_outcome, style_controlled, style_gaps, style_of


@pytest.mark.parametrize(
    ("text", "headers", "lists", "bold"),
    [
        ("plain words", 0, 0, 0),
        ("# A\ntext\n### B\n#hashtag\n####### seven", 2, 0, 0),
        ("1. one\n2. two\n  - nested\n* star\n+ plus\n-dash", 0, 5, 0),
        ("**a** and __b__ and **c\nd** and 2**3", 0, 0, 2),
        ("```md\n# no\n- no\n**no**\n```\n- yes", 0, 1, 0),
    ],
)
def test_counts(text, headers, lists, bold):
    assert style_of(text) == Style(len(text), headers, lists, bold)


def test_length_in_another_unit():
    assert style_of("abc", length=7).length == 7


def test_gaps_by_hand():
    gaps = style_gaps([Style(300, 4, 0, 0)], [Style(99, 0, 2, 0)])
    a, b = 4 / 301, 2 / 100
    assert gaps[0] == pytest.approx([201 / 399, a / (a + 1), -b / (b + 1), 0.0])
    assert style_gaps([Style(0, 0, 0, 0)], [Style(0, 0, 0, 0)]).tolist() == [[0, 0, 0, 0]]


def test_control_of_one_model_against_its_baseline_is_not_vacuous():
    """Always about equally longer and favoured for it alone: centred features would leave the raw win rate untouched."""
    draw = np.random.default_rng(0)
    gaps = np.zeros((6000, 4))
    gaps[:, 0] = draw.normal(0.4, 0.3, 6000)
    y = (draw.random(6000) < expit(3.0 * gaps[:, 0])).astype(float)
    result = style_controlled(y, gaps, draws=100)
    assert result.win_rate > 0.7
    assert result.estimate == pytest.approx(0.5, abs=0.03)
    assert result.ci95[0] < result.estimate < result.ci95[1]
    assert result.effects == {"length": pytest.approx(3.0 * gaps[:, 0].std(ddof=1), abs=0.1)}


def test_a_single_feature_may_be_chosen():
    draw = np.random.default_rng(1)
    gaps, y = draw.normal(size=(300, 4)), draw.random(300)
    assert set(style_controlled(y, gaps, features=["bold"], draws=5).effects) == {"bold"}
    assert style_controlled(y, gaps, features=[], draws=5).estimate == pytest.approx(y.mean(), abs=1e-4)


def test_strong_verdicts_weigh_three_and_copies_do_not_narrow():
    y, gaps = np.array([1.0, 0.0, 0.5, 1.0] * 10), np.zeros((40, 4))
    heavy = style_controlled(y, gaps, weight=[3, 1, 1, 1] * 10, draws=10)
    assert heavy.estimate == pytest.approx((3 + 0 + 0.5 + 1) / 6, abs=1e-3)
    once = style_controlled(y, gaps, prompt=range(40), draws=800)
    copies = style_controlled(np.tile(y, 5), np.tile(gaps, (5, 1)), prompt=list(range(40)) * 5, draws=800)
    assert np.diff(copies.ci95) == pytest.approx(np.diff(once.ci95), rel=0.02)
    assert copies.n == 40


def test_arena_verdicts():
    assert [arena_hard_outcome(v) for v in ("A>B", "B>>A")] == [(1.0, 1.0), (0.0, 3.0)]
    with pytest.raises(UserError, match="unknown verdict"):
        arena_hard_outcome("A<B")


def test_unknown_feature_is_named():
    with pytest.raises(UserError, match="unknown features"):
        style_controlled([1.0, 0.0], np.zeros((2, 4)), features=["emoji"])
