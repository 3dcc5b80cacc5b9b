"""Rewards per token, length penalties, the adaptive coefficient, and the correction between sampler and trainer."""

import math

import pytest
import torch

from evenhand.core import kl_control as pg

D64 = torch.float64
MASK = torch.tensor([[True, True, False, True], [True, False, False, False], [False, False, False, False]])
OLD = torch.tensor([[-1.0, -2.0, -9.0, -0.5], [-0.3, -9.0, -9.0, -9.0], [-9.0] * 4], dtype=D64)
REF = torch.tensor([[-1.5, -1.0, -1.0, -0.5], [-0.1, -1.0, -1.0, -1.0], [-1.0] * 4], dtype=D64)


def test_token_rewards_literal():
    found = pg.token_rewards(torch.tensor([1.0, 2.0, 3.0], dtype=D64), OLD, REF, MASK, beta=0.1)
    expected = torch.tensor([[-0.05, 0.1, 0.0, 1.0], [2.02, 0.0, 0.0, 0.0], [0.0] * 4], dtype=D64)
    torch.testing.assert_close(found, expected)


def test_token_rewards_sum_to_the_shaped_sequence_reward():
    score = torch.tensor([1.0, 2.0], dtype=D64)
    rows = MASK[:2]
    total = pg.token_rewards(score, OLD[:2], REF[:2], rows, beta=0.3).sum(-1)
    sampled_kl = torch.tensor([0.5 - 1.0 + 0.0, -0.2], dtype=D64)
    torch.testing.assert_close(total, score - 0.3 * sampled_kl)


def test_overlong_penalty_literals():
    length = torch.tensor([0, 100, 110, 115, 120, 500])
    found = pg.overlong_penalty(length, limit=120, buffer=20, factor=2.0)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, -1.0, -1.5, -2.0, -2.0]))


@pytest.mark.parametrize(("kl", "expected"), [(6.0, 0.2), (60.0, 0.2 * 1.02), (0.0, 0.2 * 0.98), (6.6, 0.2 * 1.01)])
def test_adaptive_kl_moves_by_at_most_a_fifth_per_horizon(kl, expected):
    assert pg.adaptive_kl(0.2, kl, target=6.0, horizon=1000, episodes=100) == pytest.approx(expected)


def test_importance_weights_are_truncated_and_detached():
    old = torch.tensor([[0.0, math.log(1.5), 5.0]], dtype=D64, requires_grad=True)
    behaviour = torch.tensor([[0.0, 0.0, -1e4]], dtype=D64)
    weight = pg.token_importance(old, behaviour, cap=2.0)
    torch.testing.assert_close(weight, torch.tensor([[1.0, 1.5, 2.0]], dtype=D64))
    assert not weight.requires_grad
    mask = torch.tensor([[True, True, False]])
    whole = pg.sequence_importance(old, behaviour, mask, cap=2.0)
    torch.testing.assert_close(whole, torch.tensor([1.5], dtype=D64))
    assert not whole.requires_grad


def test_untruncated_importance_weights_average_to_one():
    behaviour = torch.tensor([[0.5, 0.3, 0.2]], dtype=D64).log()
    old = torch.tensor([[0.2, 0.2, 0.6]], dtype=D64).log()
    weight = pg.token_importance(old, behaviour, cap=10.0)
    assert (behaviour.exp() * weight).sum().item() == pytest.approx(1.0)


def test_agreement_is_judged_on_the_geometric_mean():
    """Sums of the four rows: 0, 0.04, -0.015 (mean -0.005) and -0.06; log 0.99 = -0.01005 and log 1.01 = 0.00995."""
    old = torch.tensor([[0.02, -0.02, 5.0], [0.02, 0.02, 0.0], [-0.005, -0.005, -0.005], [-0.03, -0.03, 0.0]], dtype=D64)
    mask = torch.tensor([[True, True, False], [True, True, True], [True, True, True], [True, True, False]])
    found = pg.sequence_agreement(old, torch.zeros(4, 3, dtype=D64), mask, low=0.99, high=1.01)
    assert found.tolist() == [True, False, True, False]


def test_another_estimate_takes_the_place_of_k1():
    mask = torch.tensor([[True, True, False]])
    zeros = torch.zeros(1, 3)
    found = pg.token_rewards(torch.tensor([1.0]), zeros, zeros, mask, beta=0.5, estimate=torch.tensor([[0.2, 0.4, 9.0]]))
    torch.testing.assert_close(found, torch.tensor([[-0.1, 0.8, 0.0]]))
