"""Losses that look inside the answers, and the statistics of a step: by hand, on counted tokens written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import grad, gradcheck

from evenhand.core import pair_tokens as p
from evenhand.core import preference, step_weights, unpaired

MASK = torch.tensor([[True, False, True, True], [True, True, False, False]])  # 3 and 2 counted tokens
CHOSEN = torch.tensor([[-1.0, 0.0, -2.0, -4.0]], dtype=torch.float64)
REJECTED = torch.tensor([[-3.0, -0.5, 0.0, 0.0]], dtype=torch.float64)
ZERO = torch.zeros(1, 4, dtype=torch.float64)


def nls(x: float) -> float:
    return math.log1p(math.exp(-x))


def value(loss) -> float:
    assert loss.shape == (1,)
    return float(loss.detach())


def test_ld_dpo_counts_the_tail_by_a_share():
    """Two tokens are shared: -1 and -2 of the chosen answer, -4 counts alpha times; the rejected one counts whole."""
    found = p.ld_dpo(CHOSEN, REJECTED, ZERO, ZERO, MASK[:1], MASK[1:], beta=0.1, alpha=0.25)
    assert value(found) == pytest.approx(nls(0.1 * ((-1 - 2 - 4 * 0.25) - (-3.5))))
    whole = p.ld_dpo(CHOSEN, REJECTED, ZERO, ZERO, MASK[:1], MASK[1:], beta=0.1, alpha=1.0)
    assert value(whole) == pytest.approx(nls(0.1 * (-7.0 + 3.5)))


def test_ld_dpo_is_log_two_at_the_reference_whatever_the_lengths():
    found = p.ld_dpo(CHOSEN, REJECTED, CHOSEN, REJECTED, MASK[:1], MASK[1:], beta=0.1, alpha=0.3)
    assert value(found) == pytest.approx(math.log(2))


@pytest.mark.parametrize(("uniform", "drawn"), [((0.9, 0.0, 0.1, 0.2), -6.0), ((0.1, 0.0, 0.9, 0.2), -5.0)])
def test_sam_po_draws_as_many_tokens_of_the_longer_answer(uniform, drawn):
    draw = torch.tensor([uniform], dtype=torch.float64)
    found = p.sam_po(CHOSEN, REJECTED, ZERO, ZERO, MASK[:1], MASK[1:], draw, torch.rand(1, 4), beta=0.1)
    assert value(found) == pytest.approx(nls(0.1 * (drawn + 3.5)))
    at_reference = p.sam_po(CHOSEN, REJECTED, CHOSEN, REJECTED, MASK[:1], MASK[1:], draw, draw, beta=0.1)
    assert value(at_reference) == pytest.approx(math.log(2))


A, B_, GAP = (torch.tensor([v], dtype=torch.float64) for v in (0.7, -0.4, 0.3))
NONE = torch.zeros(1, dtype=torch.float64)


def test_formulas():
    x = 0.1 * 1.1
    assert value(p.wpo(A, B_, NONE, NONE, torch.tensor([-0.7]), beta=0.1)) == pytest.approx(math.exp(-0.7) * nls(x))
    assert value(p.wpo(A, B_, NONE, NONE, torch.tensor([0.7]), beta=0.1)) == pytest.approx(nls(x))
    kl = {"kl_chosen": torch.tensor([0.2]), "kl_rejected": torch.tensor([0.5])}
    assert value(p.tdpo1(A, B_, NONE, NONE, **kl, beta=0.1)) == pytest.approx(nls(x - 0.1 * 0.3))
    assert value(p.tdpo2(A, B_, NONE, NONE, **kl, beta=0.1, alpha=0.4)) == pytest.approx(nls(x - 0.1 * 0.4 * 0.3))
    assert value(p.mallows(A, B_, NONE, NONE, torch.tensor([1.5]), beta=0.1, scale=2.0)) == pytest.approx(nls(3 * x))
    assert value(p.odpo(A, B_, NONE, NONE, GAP, beta=0.1, alpha=0.5)) == pytest.approx(nls(x - 0.5 * math.log(0.3)))
    assert value(p.rebel(A, B_, NONE, NONE, GAP, eta=2.0)) == pytest.approx((1.1 - 0.6) ** 2)
    share = 1 / (1 + math.exp(-0.3))
    assert value(p.soft_dpo(A, B_, NONE, NONE, GAP, beta=0.1)) == pytest.approx(share * nls(x) + (1 - share) * nls(-x))
    old = torch.tensor([0.2]), torch.tensor([-0.1])
    found = p.inpo(A, B_, NONE + 0.5, NONE, *old, eta=0.5, ratio=0.25)
    assert value(found) == pytest.approx((1.1 - 0.25 * 0.5 - 0.75 * 0.3 - 1.0) ** 2)


def test_inpo_at_the_reference_alone_is_ipo():
    old = torch.tensor([9.0]), torch.tensor([-9.0])
    torch.testing.assert_close(p.inpo(A, B_, GAP, NONE, *old, eta=0.3, ratio=1.0), preference.ipo(A, B_, GAP, NONE, tau=0.3))


def test_odpo_at_a_gap_of_one_is_dpo_and_asks_less_below_it():
    one = torch.ones(1, dtype=torch.float64)
    dpo = preference.dpo(A, B_, NONE, NONE, beta=0.1)
    torch.testing.assert_close(p.odpo(A, B_, NONE, NONE, one, beta=0.1, alpha=1.0), dpo)
    assert p.odpo(A, B_, NONE, NONE, GAP, beta=0.1, alpha=1.0) < dpo
    assert p.odpo(A, B_, NONE, NONE, 3 * one, beta=0.1, alpha=1.0) > dpo


def test_the_weight_of_wpo_and_the_chosen_kl_of_tdpo2_have_no_gradient():
    alignment = torch.tensor([-0.5], requires_grad=True)
    loss = p.wpo(A.clone().requires_grad_(), B_, NONE, NONE, alignment, beta=0.1)
    assert grad(loss.sum(), alignment, allow_unused=True)[0] is None
    chosen, rejected = (torch.tensor([v], requires_grad=True) for v in (0.2, 0.5))
    second = p.tdpo2(A, B_, NONE, NONE, chosen, rejected, beta=0.1, alpha=0.4)
    assert grad(second.sum(), (chosen, rejected), allow_unused=True)[0] is None
    first = grad(p.tdpo1(A, B_, NONE, NONE, chosen, rejected, beta=0.1).sum(), (chosen, rejected))
    assert first[0] < 0 < first[1]  # sum over both: a chosen answer may go further from the reference than a rejected one


@pytest.mark.parametrize("loss", [
    lambda c, r: p.rebel(c, r, NONE, NONE, GAP, eta=1.3), lambda c, r: p.odpo(c, r, NONE, NONE, GAP, beta=0.3, alpha=1.0),
    lambda c, r: p.soft_dpo(c, r, NONE, NONE, GAP, beta=0.3), lambda c, r: p.tdpo1(c, r, NONE, NONE, A, B_, beta=0.3),
    lambda c, r: p.inpo(c, r, NONE, NONE, A, B_, eta=0.3, ratio=0.3),
])  # fmt: skip
def test_slopes_by_finite_differences(loss):
    assert gradcheck(loss, (A.clone().requires_grad_(), B_.clone().requires_grad_()))


# ---- statistics of a step -------------------------------------------------------------------------------------------------


def test_softmin_weights_keep_the_easiest_pair():
    loss, ones = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    found, weight = step_weights.softmin_weights(loss, ones, temperature=0.5)
    torch.testing.assert_close(weight / 3, torch.tensor([0.8581, 0.1418, 0.0000], dtype=torch.float64), atol=1e-4, rtol=0)
    assert float(found) == pytest.approx(-0.5 * math.log(sum(math.exp(-v / 0.5) for v in (0.1, 1.0, 5.0)) / 3))
    _, even = step_weights.softmin_weights(loss, ones, temperature=1e9)
    torch.testing.assert_close(even, ones)


def test_softmin_never_leaves_a_pair_out():
    """Where exp(-loss / t) underflows the pair still counts in the step's denominator: a weight of 0 would take it out."""
    weights = step_weights.softmin_weights(torch.tensor([0.1, 50.0, 3.0]), torch.tensor([1.0, 1.0, 0.0]), temperature=0.1)[1]
    assert weights.tolist() == [2.0, pytest.approx(0.0, abs=1e-30), 0.0]
    assert weights[1] > 0


def test_softmin_counts_a_heavier_pair_like_copies_of_it():
    once = step_weights.softmin_weights(torch.tensor([0.1, 2.0]), torch.tensor([3.0, 1.0]), temperature=0.7)
    copied = step_weights.softmin_weights(torch.tensor([0.1, 0.1, 0.1, 2.0]), torch.ones(4), temperature=0.7)
    torch.testing.assert_close(once[0], copied[0])
    torch.testing.assert_close(once[1], copied[1][[0, 3]])


def test_moments_and_their_average_begin_with_the_first_step():
    mean, deviation = step_weights.moments(torch.tensor([1.0, 4.0]), torch.tensor([3.0, 1.0]))
    assert (float(mean), float(deviation)) == pytest.approx((1.75, math.sqrt((3 * 0.75**2 + 2.25**2) / 4)))
    assert float(step_weights.moving(torch.tensor(2.0), None, decay=0.9)) == 2.0
    assert float(step_weights.moving(torch.tensor(2.0), torch.tensor(1.0), decay=0.9)) == pytest.approx(1.1)


def test_outliers_go_first():
    """At one random number for all, the draw is by the distance from the centre; at deviation 0 nothing divides by it."""
    margin, half = torch.tensor([0.0, 0.2, 9.0, -0.1, -7.0]), torch.full((5,), 0.5)
    near = {"centre": torch.tensor(0.0), "deviation": torch.tensor(1.0)}
    kept = step_weights.kept_near_mean(margin, half, **near, drop=0.4)
    assert kept.tolist() == [True, True, False, True, False]
    flat = step_weights.kept_near_mean(
        torch.zeros(4), torch.rand(4), centre=torch.tensor(0.0), deviation=torch.zeros(()), drop=0.25
    )
    assert int(flat.sum()) == 3


def test_classifiers_of_single_answers():
    reward, good = torch.tensor([0.4, -0.3]), torch.tensor([True, False])
    expected = [nls(0.4 - 0.1), nls(0.3 + 0.1)]
    torch.testing.assert_close(unpaired.bco(reward, good, torch.tensor(0.1)), torch.tensor(expected))
    kto = preference.kto(reward / 0.2, torch.zeros(2), good, 0.0, beta=0.2)
    torch.testing.assert_close(unpaired.apo_zero(reward, good), kto)
