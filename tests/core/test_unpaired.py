"""KTO: its value and gradient facts, the detached reference point, and the mismatched pairs behind it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import grad, gradcheck

from evenhand.core.preference import kto, mismatched, z0

LOGP = torch.tensor([-3.0, -2.0, -5.0], dtype=torch.float64)
REF = torch.tensor([-3.5, -1.0, -5.0], dtype=torch.float64)
DESIRABLE = torch.tensor([True, False, False])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_closed_form():
    loss = kto(LOGP, REF, DESIRABLE, 0.3, beta=0.5, weight_desirable=1.5, weight_undesirable=2.0)
    expected = [1.5 * (1 - sigmoid(0.5 * 0.2)), 2.0 * (1 - sigmoid(-0.5 * -1.3)), 2.0 * (1 - sigmoid(-0.5 * -0.3))]
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64))


def test_gradient_by_finite_differences_and_by_formula():
    def loss(logp):
        return kto(logp, REF, DESIRABLE, 0.3, beta=0.5, weight_desirable=1.5, weight_undesirable=2.0)

    logp = LOGP.clone().requires_grad_()
    assert gradcheck(loss, (logp,))
    expected = []
    for r, s, w in [(0.5, 1, 1.5), (-1.0, -1, 2.0), (0.0, -1, 2.0)]:
        q = sigmoid(0.5 * (r - 0.3))
        expected.append(-s * w * 0.5 * q * (1 - q))
    torch.testing.assert_close(grad(loss(logp).sum(), logp)[0], torch.tensor(expected, dtype=torch.float64))


def test_desirable_is_pushed_up_undesirable_down_and_outliers_are_left_alone():
    logp = torch.tensor([-200.0, -1.0, 0.0, 1.0, 200.0], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(5, dtype=torch.float64)
    up = grad(kto(logp, zero, torch.ones(5, dtype=torch.bool), 0.0, beta=1.0).sum(), logp)[0]
    down = grad(kto(logp, zero, torch.zeros(5, dtype=torch.bool), 0.0, beta=1.0).sum(), logp)[0]
    assert (up <= 0).all()
    torch.testing.assert_close(down, -up)  # so swapping labels flips the sign
    assert up[2].item() == -0.25
    assert up.abs().max() == 0.25
    assert up[0].abs() < 1e-12
    assert up[4].abs() < 1e-12


def test_no_gradient_reaches_the_reference_point():
    policy = torch.tensor([0.5, 1.5], dtype=torch.float64, requires_grad=True)
    reference = z0(policy, torch.zeros(2, dtype=torch.float64))
    assert reference.item() == 1.0
    assert not reference.requires_grad
    attached = policy.mean()
    logp = LOGP.clone().requires_grad_()
    kto(logp, REF, DESIRABLE, attached, beta=0.5).sum().backward()
    assert policy.grad is None
    assert logp.grad is not None


def test_reference_point_is_never_negative():
    assert z0(torch.tensor([-5.0, 1.0]), torch.zeros(2)) == 0


def test_extreme_values_stay_finite_in_fp32():
    logp = torch.tensor([0.0, -1e-7, -1e4, 1e3], requires_grad=True)
    loss = kto(logp, torch.zeros(4), torch.tensor([True, False, True, False]), 0.0, beta=1.0)
    assert loss.isfinite().all()
    assert grad(loss.sum(), logp)[0].isfinite().all()


@settings(max_examples=80, deadline=None)
@given(prompts=st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_mismatched_rows_have_other_prompts_and_none_is_used_twice(prompts):
    prompt = torch.tensor(prompts)
    partner = mismatched(prompt)
    kept = partner >= 0
    assert (prompt[partner[kept]] != prompt[kept]).all()
    assert len(set(partner[kept].tolist())) == int(kept.sum())
    largest = max(prompts.count(x) for x in prompts)
    if 2 * largest <= len(prompts):
        assert kept.all()


@pytest.mark.parametrize("rows", [4, 5, 7])
def test_pairs_sharing_a_prompt_are_never_matched_with_themselves(rows):
    prompt = torch.arange(rows).repeat_interleave(2)
    assert (prompt[mismatched(prompt)] != prompt).all()
