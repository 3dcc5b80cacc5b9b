"""AOT: the comonotone coupling, and the two-pass form against autograd through the global sort."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import grad

from evenhand.core import preference as p

SORTED = {"aot_unpaired": (p.aot_unpaired, p.aot_unpaired_weights), "aot_paired": (p.aot_paired, p.aot_paired_weights)}


def logps(seed, *sizes):
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes]


@pytest.mark.parametrize("name", SORTED)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 9), beta=st.floats(0.01, 2.0))
def test_two_pass_weights_are_the_gradient_through_the_global_sort(name, seed, size, beta):
    loss, weights = SORTED[name]
    chosen, rejected, ref_chosen, ref_rejected = logps(seed, size, size, size, size)
    chosen.requires_grad_()
    rejected.requires_grad_()
    expected = grad(loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta).sum(), (chosen, rejected))
    found = weights(chosen, rejected, ref_chosen, ref_rejected, beta=beta)
    assert not any(w.requires_grad for w in found)
    torch.testing.assert_close(found, expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), better=st.integers(1, 9), worse=st.integers(1, 9))
def test_two_pass_weights_at_unequal_counts(seed, better, worse):
    chosen, rejected, ref_chosen, ref_rejected = logps(seed, better, worse, better, worse)
    chosen.requires_grad_()
    rejected.requires_grad_()
    expected = grad(p.aot_unpaired(chosen, rejected, ref_chosen, ref_rejected, beta=0.4).sum(), (chosen, rejected))
    torch.testing.assert_close(p.aot_unpaired_weights(chosen, rejected, ref_chosen, ref_rejected, beta=0.4), expected)


@pytest.mark.parametrize("name", SORTED)
def test_micro_batches_with_weights_of_the_whole_step_give_the_whole_gradient(name):
    loss, weights = SORTED[name]
    data = torch.stack(logps(3, 8, 8, 8, 8))
    chosen, rejected = data[0].clone().requires_grad_(), data[1].clone().requires_grad_()
    whole = grad(loss(chosen, rejected, data[2], data[3], beta=0.5).mean(), (chosen, rejected))
    w_chosen, w_rejected = weights(*data, beta=0.5)
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
