"""Soft Q-functions, projections and over-optimisation on problems worked out by hand."""

import math

import pytest
import torch

from evenhand.theory import overoptimisation, projections, soft_q
from evenhand.theory.tree import ProbabilityTree


def test_q_of_a_tree_of_two_tokens():
    tree = ProbabilityTree(actions=2, horizon=2)
    reward = torch.tensor([[math.log(1.0), math.log(2.0), math.log(3.0), math.log(4.0)]], dtype=torch.float64)
    q = soft_q.q_values(tree, reward)[0].exp()
    assert q[0].tolist() == pytest.approx([1 + 2, 3 + 4])  # the root: sums over what follows
    assert q[1].tolist() == pytest.approx([1, 2])
    assert q[2].tolist() == pytest.approx([3, 4])
    assert soft_q.conditional(tree, reward)[0, 0].exp().tolist() == pytest.approx([0.3, 0.7])


def test_the_nearest_member_by_the_forward_kl_has_the_target_s_mean():
    """Maximum likelihood in an exponential family matches the mean of its feature."""
    forward, reverse = projections.nearest(projections.TWO_PEAKS)
    mean = (projections.member(torch.tensor(forward)).exp() * projections.FEATURE).sum().item()
    assert mean == pytest.approx((projections.TWO_PEAKS.exp() * projections.FEATURE).sum().item(), abs=1e-6)
    assert reverse != pytest.approx(forward, abs=0.1)


def test_best_of_one_is_the_reference_and_best_of_many_has_a_known_divergence():
    proxy, gold = overoptimisation.rewards(heavy=False)
    one, four = overoptimisation.best_of(proxy, gold, [1, 4])
    assert (one.kl, one.gold) == pytest.approx((0.0, gold.mean().item()), abs=1e-9)
    assert four.kl == pytest.approx(math.log(4) - 3 / 4, abs=1e-3)  # exact where answers are many
    assert proxy.std().item() == pytest.approx(1.0)


def test_a_tilted_policy_of_a_normal_proxy_rises_by_its_slope():
    """Mean proxy under exp(proxy / beta) is 1 / beta, KL is 1 / (2 beta^2), and gold is half correlated: 1 / (beta root 2)."""
    proxy, gold = overoptimisation.rewards(heavy=False)
    (found,) = overoptimisation.tilted(proxy, gold, [2.0])
    assert (found.proxy, found.kl, found.gold) == pytest.approx((0.5, 0.125, 0.5 / math.sqrt(2)), abs=0.03)
