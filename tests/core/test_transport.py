"""AOT: the comonotone coupling, and the two-pass form against autograd through the global sort."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import grad

from evenhand.core import preference as p

SORTED = {"unpaired": p.aot_unpaired, "paired": p.aot_paired}


def logps(seed, *sizes):
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes]


def weights(form, chosen, rejected, ref_chosen, ref_rejected, *, beta):
    """The gradient of the plain loss's sum, through its global sort."""
    inputs = chosen.clone().requires_grad_(), rejected.clone().requires_grad_()
    return grad(SORTED[form](*inputs, ref_chosen, ref_rejected, beta=beta).sum(), inputs)


@pytest.mark.parametrize("form", SORTED)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 9), beta=st.floats(0.01, 2.0))
def test_two_pass_weights_are_the_gradient_through_the_global_sort(form, seed, size, beta):
    data = logps(seed, size, size, size, size)
    _, *found = p.aot_of_pairs(*(x.requires_grad_() for x in data), torch.ones(size), form=form, beta=beta)
    assert not any(w.requires_grad for w in found)
    torch.testing.assert_close(tuple(found), weights(form, *(x.detach() for x in data), beta=beta))


@pytest.mark.parametrize("form", SORTED)
def test_micro_batches_with_weights_of_the_whole_step_give_the_whole_gradient(form):
    loss = SORTED[form]
    data = torch.stack(logps(3, 8, 8, 8, 8))
    chosen, rejected = data[0].clone().requires_grad_(), data[1].clone().requires_grad_()
    whole = grad(loss(chosen, rejected, data[2], data[3], beta=0.5).mean(), (chosen, rejected))
    _, w_chosen, w_rejected = p.aot_of_pairs(*data, torch.ones(8), form=form, beta=0.5)
    for part in (slice(0, 3), slice(3, 8)):
        ((w_chosen[part] * chosen[part]).sum() / 8 + (w_rejected[part] * rejected[part]).sum() / 8).backward()
    torch.testing.assert_close((chosen.grad, rejected.grad), whole)
    local = torch.cat([loss(*data[:, part], beta=0.5) for part in (slice(0, 3), slice(3, 8))]).mean()
    assert (local - loss(*data, beta=0.5).mean()).abs() > 1e-3  # sorting within micro-batches is another objective


def test_unpaired_is_the_cheapest_pairing():
    chosen, rejected, ref_chosen, ref_rejected = logps(5, 5, 5, 5, 5)
    sorted_loss = p.aot_unpaired(chosen, rejected, ref_chosen, ref_rejected, beta=0.5).mean()
    pairings = [
        p.dpo(chosen, rejected[list(order)], ref_chosen, ref_rejected[list(order)], beta=0.5).mean()
        for order in permutations(range(5))
    ]
    torch.testing.assert_close(sorted_loss, torch.stack(pairings).min())


def test_unpaired_ignores_who_was_paired_with_whom():
    chosen, rejected, ref_chosen, ref_rejected = logps(6, 6, 6, 6, 6)
    a, b = torch.tensor([3, 1, 5, 0, 2, 4]), torch.tensor([2, 4, 0, 1, 5, 3])
    torch.testing.assert_close(
        p.aot_unpaired(chosen[a], rejected[b], ref_chosen[a], ref_rejected[b], beta=0.5),
        p.aot_unpaired(chosen, rejected, ref_chosen, ref_rejected, beta=0.5),
    )


def test_paired_on_log_ratios_compares_policy_margins_with_reference_margins():
    chosen, rejected, ref_chosen, ref_rejected = logps(7, 4, 4, 4, 4)
    policy, reference = np.sort((chosen - rejected).numpy()), np.sort((ref_chosen - ref_rejected).numpy())
    torch.testing.assert_close(
        p.aot_paired(chosen, rejected, ref_chosen, ref_rejected, beta=0.5),
        torch.from_numpy(np.log1p(np.exp(-0.5 * (policy - reference)))),
    )


def test_unequal_counts_interpolate_the_rejected_quantiles():
    zero = torch.zeros(2, dtype=torch.float64)
    rejected = torch.tensor([4.0, 0.0, 2.0, 8.0], dtype=torch.float64)
    # Quantile levels 1/4 and 3/4 fall half-way between the two lower and between the two upper values: 1 and 6.
    quantiles = torch.from_numpy(np.quantile(rejected.numpy(), [0.25, 0.75], method="hazen"))
    assert quantiles.tolist() == [1.0, 6.0]
    loss = p.aot_unpaired(zero, rejected, zero, torch.zeros(4, dtype=torch.float64), beta=1.0)
    torch.testing.assert_close(loss, torch.log1p(torch.exp(quantiles)))


@pytest.mark.parametrize("form", SORTED)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), times=st.lists(st.integers(0, 4), min_size=1, max_size=7).filter(any))
def test_a_weighted_pair_is_that_many_copies_of_it(form, seed, times):
    """Value and gradient of the copies' own global sort; what the copies of one pair get is summed."""
    data = logps(seed, *[len(times)] * 4)
    repeats = torch.tensor(times)
    chosen, rejected, ref_chosen, ref_rejected = (x.repeat_interleave(repeats) for x in data)
    value, *found = p.aot_of_pairs(*data, repeats.double(), form=form, beta=0.4)
    torch.testing.assert_close(value.sum(), SORTED[form](chosen, rejected, ref_chosen, ref_rejected, beta=0.4).sum())
    owner = torch.arange(len(times)).repeat_interleave(repeats)
    known = weights(form, chosen, rejected, ref_chosen, ref_rejected, beta=0.4)
    torch.testing.assert_close(found, [torch.zeros(len(times)).double().index_add(0, owner, w) for w in known])


@pytest.mark.parametrize("form", SORTED)
def test_pairs_that_count_once_are_the_plain_sort_to_the_bit(form):
    data = [x.float() for x in logps(11, 6, 6, 6, 6)]
    value, *found = p.aot_of_pairs(*data, torch.ones(6), form=form, beta=0.4)
    assert torch.equal(value, SORTED[form](*data, beta=0.4))
    torch.testing.assert_close(tuple(found), weights(form, *data, beta=0.4))


def test_labels_of_one_half_say_nothing():
    """Every pair counts both ways by halves: the two distributions are one, whatever the policy says of the answers."""
    a, b, ref_a, ref_b = logps(12, 5, 5, 5, 5)
    both = [torch.cat(x) for x in ((a, b), (b, a), (ref_a, ref_b), (ref_b, ref_a))]
    value, by_chosen, by_rejected = p.aot_of_pairs(*both, torch.full((10,), 0.5).double(), form="unpaired", beta=0.4)
    assert float(value.sum()) == pytest.approx(5 * np.log(2))
    answers = by_chosen + torch.cat([by_rejected[5:], by_rejected[:5]])  # an answer is chosen in one pair, rejected in the other
    torch.testing.assert_close(answers, torch.zeros(10).double(), rtol=0, atol=1e-12)
