"""The two optimisers: known minima, honesty where there is none, and the theorems on trees of other shapes."""

import pytest
import torch

from evenhand.core import preference
from evenhand.theory import likelihood
from evenhand.theory.optimum import climb, minimise

D64 = torch.float64


def test_minimise_finds_a_curved_valley():
    found = minimise(lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2, torch.tensor([-1.2, 1.0], dtype=D64))
    torch.testing.assert_close(found, torch.ones(2, dtype=D64), atol=1e-9, rtol=0)


def test_minimise_leaves_flat_directions_alone():
    target = torch.tensor([0.2, 0.5, 0.3], dtype=D64)
    found = minimise(lambda x: -(target * x.log_softmax(-1)).sum(), torch.zeros(3, dtype=D64))
    torch.testing.assert_close(found.softmax(-1), target, atol=1e-12, rtol=0)
    assert found.sum().item() == pytest.approx(0, abs=1e-9)


def test_minimise_raises_where_the_optimum_lies_at_infinity():
    """Robust DPO on clean labels falls for ever, with slope -flip / (1 - 2 flip)."""
    with pytest.raises(ArithmeticError, match="no stationary point"):
        minimise(lambda d: preference.robust(d, 0, 0, 0, beta=1.0, flip=0.2).sum(), torch.zeros(1, dtype=D64))


def test_climb_with_a_linear_reward_multiplies_probabilities():
    reward = torch.tensor([1.0, 0.0, -1.0], dtype=D64)
    start = torch.tensor([0.2, 0.3, 0.5], dtype=D64).log()
    found = climb(lambda logp: -(logp.exp() * reward).sum(), start, step=0.7, rounds=1)
    weight = start.exp() * (0.7 * reward).exp()
    torch.testing.assert_close(found.exp(), weight / weight.sum())


@pytest.mark.parametrize(("actions", "horizon"), [(2, 3), (4, 2)])
def test_theorems_hold_on_trees_of_other_shapes(actions, horizon):
    p = likelihood.problem(actions=actions, horizon=horizon, seed=1)
    assert likelihood.theorem_2_2(p) < 1e-6
    assert likelihood.theorem_2_3(p, beta=0.7) < 1e-6


def test_counts_leave_the_likelihood_finite():
    counts = likelihood.problem().counts
    off_diagonal = ~torch.eye(9, dtype=torch.bool)
    assert (counts[:, off_diagonal] >= 1).all()
    assert not counts[:, ~off_diagonal].any()
