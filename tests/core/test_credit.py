"""Credit: literals, identities between baselines, unscored completions, and generalised advantage estimation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evenhand.core import credit

NAN = math.nan
GROUP = {
    "centre": credit.centre,
    "standardise": credit.standardise,
    "leave_one_out": credit.leave_one_out,
    "rank": credit.rank,
    "batch_baseline": credit.batch_baseline,
}
reward_groups = st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=7).map(
    lambda r: torch.tensor([r], dtype=torch.float64)
)


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_literals():
    reward = tensor([1, 0, 2, 5])
    torch.testing.assert_close(credit.centre(reward), tensor([-1, -2, 0, 3]))
    torch.testing.assert_close(credit.leave_one_out(reward), tensor([-4 / 3, -8 / 3, 0, 4]))
    std = math.sqrt(14 / 3)
    torch.testing.assert_close(credit.standardise(reward, eps=0.0), tensor([-1 / std, -2 / std, 0, 3 / std]))
    torch.testing.assert_close(credit.standardise(reward, ddof=0, eps=0.5), tensor([-1, -2, 0, 3]) / (math.sqrt(3.5) + 0.5))
    torch.testing.assert_close(credit.rank(reward), tensor([-1 / 3, -1, 1 / 3, 1]))


def test_two_completions_pin_the_convention_of_the_deviation():
    reward = tensor([0.2, 0.9])
    torch.testing.assert_close(credit.standardise(reward, ddof=0, eps=0.0), tensor([-1, 1]))
    torch.testing.assert_close(credit.standardise(reward, ddof=1, eps=0.0), tensor([-math.sqrt(0.5), math.sqrt(0.5)]))


@pytest.mark.parametrize("group", [3, 5, 16])
def test_largest_standardised_advantage(group):
    reward = torch.zeros(1, group, dtype=torch.float64)
    reward[0, 1] = 1.0
    assert credit.standardise(reward, eps=0.0).max().item() == pytest.approx((group - 1) / math.sqrt(group))
    assert credit.standardise(reward, ddof=0, eps=0.0).max().item() == pytest.approx(math.sqrt(group - 1))


def test_rank_is_the_average_rank_formula_with_ties():
    torch.testing.assert_close(credit.rank(tensor([1, 1, 0, 2])), tensor([0, 0, -1, 1]))


@pytest.mark.parametrize("group", [2, 5, 9])
def test_rank_mean_square_without_ties(group):
    advantage = credit.rank(torch.arange(group, dtype=torch.float64).unsqueeze(0))
    assert advantage.square().mean().item() == pytest.approx((group + 1) / (3 * (group - 1)))


@settings(max_examples=60, deadline=None)
@given(reward=reward_groups)
def test_group_identities(reward):
    size = reward.shape[-1]
    centred = credit.centre(reward)
    loo = torch.stack([reward[0, i] - torch.cat([reward[0, :i], reward[0, i + 1 :]]).mean() for i in range(size)])
    torch.testing.assert_close(credit.leave_one_out(reward)[0], loo)
    torch.testing.assert_close(credit.leave_one_out(reward), centred * size / (size - 1))
    for advantage in (f(reward) for f in GROUP.values()):
        assert advantage.sum().item() == pytest.approx(0, abs=1e-9)
        torch.testing.assert_close(GROUP["centre"](reward + 3.0), centred, atol=1e-9, rtol=1e-7)


@settings(max_examples=40, deadline=None)
@given(ranks=st.lists(st.integers(0, 4), min_size=2, max_size=7))
def test_rank_ignores_increasing_maps(ranks):
    reward = torch.tensor([ranks], dtype=torch.float64)
    torch.testing.assert_close(credit.rank(reward.pow(3) + reward), credit.rank(reward))


def test_standardise_ignores_positive_affine_maps_up_to_eps():
    reward = tensor([0.1, 2.0, -1.0], [5, 6, 8])
    torch.testing.assert_close(credit.standardise(4 * reward + 7, eps=0.0), credit.standardise(reward, eps=0.0))
    assert (credit.standardise(4 * reward) - credit.standardise(reward)).abs().max() < 1e-3


@pytest.mark.parametrize("name", GROUP)
@pytest.mark.parametrize("row", [[0.1, 0.1, 0.1], [3e6 + 0.5] * 3, [NAN, NAN, NAN], [NAN, 2.0, NAN]])
def test_flat_singleton_and_unscored_groups_get_exactly_zero(name, row):
    assert torch.equal(GROUP[name](torch.tensor([row])), torch.zeros(1, 3))


def test_standardise_does_not_blow_up_rounding_errors():
    reward = torch.tensor([[0.7, 0.7 + 6e-8, 0.7]])  # fp32 residue, not a difference
    assert torch.equal(credit.standardise(reward), torch.zeros(1, 3))


def test_large_offsets_keep_their_differences_in_fp32():
    reward = torch.tensor([[1e6, 1e6 + 1, 1e6 + 2]])
    torch.testing.assert_close(credit.standardise(reward, eps=0.0), torch.tensor([[-1.0, 0.0, 1.0]]))


@pytest.mark.parametrize("name", ["centre", "standardise", "leave_one_out", "rank"])
def test_an_unscored_completion_is_as_if_absent(name):
    with_gap = GROUP[name](tensor([1, NAN, 4, 2]))
    torch.testing.assert_close(with_gap[:, [0, 2, 3]], GROUP[name](tensor([1, 4, 2])))
    assert with_gap[0, 1] == 0


def test_batch_baseline_is_the_mean_of_all_others():
    reward = tensor([1, 2], [NAN, 6])
    torch.testing.assert_close(credit.batch_baseline(reward), tensor([1 - 4, 2 - 3.5], [0, 6 - 1.5]))


def test_running_baseline_literals():
    start = torch.tensor(NAN, dtype=torch.float64)
    advantage, first = credit.running_baseline(tensor([1, 3]), start, decay=0.9)
    torch.testing.assert_close(advantage, tensor([-2, 2]))
    assert first.item() == 2
    advantage, second = credit.running_baseline(tensor([4, NAN]), first, decay=0.9)
    torch.testing.assert_close(advantage, tensor([2, 0]))
    assert second.item() == pytest.approx(0.9 * 2 + 0.1 * 4)
    advantage, third = credit.running_baseline(tensor([NAN, NAN]), second, decay=0.9)
    assert torch.equal(advantage, torch.zeros(1, 2, dtype=torch.float64))
    assert third == second


# --- generalised advantage estimation -------------------------------------------------------------------------------

REWARD = tensor([0.5, -1.0, 2.0, 9.0], [1.0, 0.0, 0.0, 9.0])
VALUE = tensor([0.1, 0.4, -0.3, 9.0], [0.2, 9.0, 0.7, 9.0])
MASK = torch.tensor([[True, True, True, False], [True, False, True, False]])  # the second row steps over a tool's token


def gae_by_sum(reward, value, gamma, lam, after=0.0):
    """A_t = sum_l (gamma lam)^l delta_{t+l}, written out for one row of counted tokens."""
    values = [*value, after]
    delta = [r + gamma * values[t + 1] - values[t] for t, r in enumerate(reward)]
    return [sum((gamma * lam) ** k * d for k, d in enumerate(delta[t:])) for t in range(len(reward))]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.7, 0.0)])
def test_gae_equals_the_sum_of_discounted_differences(gamma, lam):
    advantage, returns = credit.gae(REWARD, VALUE, MASK, gamma=gamma, lam=lam)
    first = gae_by_sum([0.5, -1.0, 2.0], [0.1, 0.4, -0.3], gamma, lam)
    second = gae_by_sum([1.0, 0.0], [0.2, 0.7], gamma, lam)
    torch.testing.assert_close(advantage, tensor([*first, 0], [second[0], 0, second[1], 0]))
    torch.testing.assert_close(returns, torch.where(MASK, advantage + VALUE, 0.0))


def test_gae_limits():
    advantage, _ = credit.gae(REWARD, VALUE, MASK, gamma=1.0, lam=1.0)
    torch.testing.assert_close(advantage[0, :3], tensor([1.5, 1.0, 2.0])[0] - VALUE[0, :3])  # reward-to-go minus value
    advantage, _ = credit.gae(REWARD, VALUE, MASK, gamma=1.0, lam=0.0)
    torch.testing.assert_close(advantage[0, :3], tensor([0.5 + 0.4 - 0.1, -1.0 - 0.3 - 0.4, 2.0 + 0.3])[0])


def test_gae_continues_a_truncated_row_at_its_last_value():
    cut = torch.tensor([True, False])
    advantage, _ = credit.gae(REWARD, VALUE, MASK, gamma=0.9, lam=0.8, bootstrap=cut)
    plain, _ = credit.gae(REWARD, VALUE, MASK, gamma=0.9, lam=0.8)
    torch.testing.assert_close(advantage[0, :3], tensor(gae_by_sum([0.5, -1.0, 2.0], [0.1, 0.4, -0.3], 0.9, 0.8, after=-0.3))[0])
    assert torch.equal(advantage[1], plain[1])


def test_gae_ignores_what_padding_holds_and_refuses_a_bootstrap_of_numbers():
    dirty = torch.where(MASK, VALUE, NAN)
    advantage, returns = credit.gae(torch.where(MASK, REWARD, NAN), dirty, MASK, gamma=1.0, lam=0.9)
    assert advantage.isfinite().all()
    assert returns.isfinite().all()
    with pytest.raises(ValueError, match="bool"):
        credit.gae(REWARD, VALUE, MASK, gamma=1.0, lam=0.9, bootstrap=torch.ones(2))


def test_whiten_literal_and_masked():
    advantage = tensor([1, 2, 100], [3, 100, 100])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = tensor([-1, 0, 0], [1, 0, 0])  # mean 2, unbiased variance 1
    torch.testing.assert_close(credit.whiten(advantage, mask), expected, atol=1e-7, rtol=0)
    assert torch.equal(credit.whiten(advantage, torch.zeros_like(mask)), torch.zeros_like(advantage))
    assert torch.equal(credit.whiten(torch.full_like(advantage, 2.5), mask), torch.zeros_like(advantage))
