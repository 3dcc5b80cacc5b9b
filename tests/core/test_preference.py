"""Preference losses: closed forms, gradient facts by finite differences, where they are minimised, identities, extremes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import grad, gradcheck

from evenhand.core import preference as p

PAIR = torch.tensor([[-3.0, -2.0, -7.5], [-4.0, -1.0, -7.0], [-3.5, -2.5, -8.0], [-3.0, -1.5, -6.0]], dtype=torch.float64)
"""chosen, rejected, ref_chosen, ref_rejected for three pairs."""
ADVANCE = [(-3.0 + 3.5) - (-4.0 + 3.0), (-2.0 + 2.5) - (-1.0 + 1.5), (-7.5 + 8.0) - (-7.0 + 6.0)]  # 1.5, 0, 1.5


def length_desensitised(chosen, *others):
    """With token counts 0, 1, 2, ... of the chosen and ..., 2, 1, 0 of the rejected."""
    length = torch.arange(chosen.numel()).to(chosen)
    return p.length_desensitised(chosen, *others, length, length.flip(0), beta=0.3, alpha=0.05)


WITH_REFERENCE = {
    "dpo": lambda *x: p.dpo(*x, beta=0.3),
    "cdpo": lambda *x: p.cdpo(*x, beta=0.3, flip=0.1),
    "robust": lambda *x: p.robust(*x, beta=0.3, flip=0.1),
    "ipo": lambda *x: p.ipo(*x, tau=0.2),
    "ipo_mean": lambda *x: p.ipo_mean(*x, tau=0.2),
    "hinge": lambda *x: p.hinge(*x, beta=0.3),
    "length_desensitised": length_desensitised,
    "aot_unpaired": lambda *x: p.aot_unpaired(*x, beta=0.3),
    "aot_paired": lambda *x: p.aot_paired(*x, beta=0.3),
}
WITHOUT_REFERENCE = {
    "local": lambda c, r: p.local(c, r, beta=0.7),
    "slic": lambda c, r: p.slic(c, r, margin=1.3),
    "simpo": lambda c, r: p.simpo(c, r, beta=2.0, margin=0.5),
    "orpo": p.orpo,
    "bradley_terry": lambda c, r: p.bradley_terry(c, r, margin=0.4),
    "centring": p.centring,
}


def nls(x):
    """-log sigmoid by its definition, safe for the small numbers used here."""
    return math.log(1 + math.exp(-x))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def loss_at(loss, advance):
    """The loss as a function of D alone."""
    zero = torch.zeros((), dtype=torch.float64)
    return loss(torch.as_tensor(advance, dtype=torch.float64), zero, zero, zero)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("dpo", lambda d: nls(0.3 * d)),
        ("cdpo", lambda d: 0.9 * nls(0.3 * d) + 0.1 * nls(-0.3 * d)),
        ("robust", lambda d: (0.9 * nls(0.3 * d) - 0.1 * nls(-0.3 * d)) / 0.8),
        ("ipo", lambda d: (d - 2.5) ** 2),
        ("ipo_mean", lambda d: (d - 2.5) ** 2),
        ("hinge", lambda d: max(0.0, 1 - 0.3 * d)),
    ],
)
def test_closed_forms_with_a_reference(name, formula):
    expected = torch.tensor([formula(d) for d in ADVANCE], dtype=torch.float64)
    torch.testing.assert_close(WITH_REFERENCE[name](*PAIR), expected)


def test_closed_forms_without_a_reference():
    c, r = torch.tensor([-0.5, -0.2], dtype=torch.float64), torch.tensor([-0.4, -2.0], dtype=torch.float64)

    def odds(x):
        return math.log(math.exp(x) / (1 - math.exp(x)))

    expected = {
        "local": [nls(-0.07), nls(1.26)],
        "slic": [1.4, 0.0],
        "simpo": [nls(-0.2 - 0.5), nls(3.6 - 0.5)],
        "orpo": [nls(odds(-0.5) - odds(-0.4)), nls(odds(-0.2) - odds(-2.0))],
        "bradley_terry": [nls(-0.5), nls(1.4)],
        "centring": [0.81, 4.84],
    }
    for name, values in expected.items():
        torch.testing.assert_close(WITHOUT_REFERENCE[name](c, r), torch.tensor(values, dtype=torch.float64), msg=name)


def test_length_desensitised_asks_less_of_a_longer_chosen_answer():
    expected = [nls(0.3 * d + 0.05 * n) for d, n in zip(ADVANCE, [-2, 0, 2], strict=True)]
    torch.testing.assert_close(WITH_REFERENCE["length_desensitised"](*PAIR), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", ["dpo", "cdpo", "robust", "aot_unpaired", "aot_paired"])
def test_log_two_while_the_policy_is_the_reference(name):
    loss = WITH_REFERENCE[name](PAIR[0], PAIR[1], PAIR[0], PAIR[1])
    torch.testing.assert_close(loss, torch.full((3,), math.log(2), dtype=torch.float64))


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_gradients_by_finite_differences_with_a_reference(name):
    shifted = PAIR + torch.linspace(0.0, 1.1, 12, dtype=torch.float64).reshape(3, 4).T.square()  # no ties for the sorts
    assert gradcheck(WITH_REFERENCE[name], tuple(x.clone().requires_grad_() for x in shifted))


@pytest.mark.parametrize("name", WITHOUT_REFERENCE)
def test_gradients_by_finite_differences_without_a_reference(name):
    c, r = torch.tensor([-0.5, -0.2, -3.0, -0.9]), torch.tensor([-0.4, -2.0, -0.01, -0.7])
    assert gradcheck(WITHOUT_REFERENCE[name], (c.double().requires_grad_(), r.double().requires_grad_()))


def slope(loss, *args, of):
    inputs = [torch.as_tensor(a, dtype=torch.float64).clone().requires_grad_() for a in args]
    return grad(loss(*inputs).sum(), inputs[of])[0]


def test_dpo_pulls_with_the_probability_of_being_wrong():
    expected = torch.tensor([-0.3 * sigmoid(-0.3 * d) for d in ADVANCE], dtype=torch.float64)
    torch.testing.assert_close(slope(WITH_REFERENCE["dpo"], *PAIR, of=0), expected)
    torch.testing.assert_close(slope(WITH_REFERENCE["dpo"], *PAIR, of=1), -expected)


@pytest.mark.parametrize("name", ["dpo", "ipo", "hinge", "cdpo", "robust"])
def test_at_the_reference_every_loss_prefers_the_chosen_answer(name):
    assert slope(lambda d: loss_at(WITH_REFERENCE[name], d), 0.0, of=0) < 0


def test_hinges_have_slope_minus_beta_or_exactly_zero():
    assert slope(lambda d: p.hinge(d, 0, 0, 0, beta=0.5), [1.0, 3.0], of=0).tolist() == [-0.5, 0.0]
    assert slope(lambda c: p.slic(c, torch.zeros(()), margin=1.0), [0.5, 1.5], of=0).tolist() == [-1.0, 0.0]


def test_ipo_pulls_back_past_its_target():
    gradient = slope(lambda d: p.ipo(d, 0, 0, 0, tau=0.1), [4.0, 5.0, 6.0], of=0)
    torch.testing.assert_close(gradient, torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64))


def test_orpo_amplifies_by_the_inverse_of_one_minus_p():
    x, y = -0.5, -0.4
    odds_ratio = math.exp(x) / (1 - math.exp(x)) / (math.exp(y) / (1 - math.exp(y)))
    delta = 1 / (1 + odds_ratio)
    assert slope(p.orpo, [x], [y], of=0).item() == pytest.approx(-delta / (1 - math.exp(x)))
    assert slope(p.orpo, [x], [y], of=1).item() == pytest.approx(delta / (1 - math.exp(y)))


def test_simpo_literal_gradient_on_summed_log_probs():
    chosen, n_chosen = -6.0, 4
    gradient = slope(lambda s: p.simpo(s / n_chosen, torch.full_like(s, -1.0), beta=2.0, margin=0.5), [chosen], of=0)
    assert gradient.item() == pytest.approx(-(2.0 / n_chosen) * sigmoid(0.5 - 2.0 * (chosen / n_chosen + 1.0)))


def test_bradley_terry_leaves_the_level_free_and_centring_pins_it():
    total = slope(p.bradley_terry, [2.0], [0.5], of=0) + slope(p.bradley_terry, [2.0], [0.5], of=1)
    assert total.item() == pytest.approx(0)
    assert slope(p.centring, [2.0], [0.5], of=0).item() == pytest.approx(5.0)


# --- minimisers -------------------------------------------------------------------------------------------------------


def test_cdpo_is_minimised_at_the_log_odds_of_the_flip_rate():
    target = math.log(0.9 / 0.1) / 0.3
    assert slope(lambda d: p.cdpo(d, 0, 0, 0, beta=0.3, flip=0.1), target, of=0).item() == pytest.approx(0, abs=1e-12)


def test_ipo_under_preference_probability_q_is_minimised_at_its_target():
    q, tau = 0.7, 0.2
    d = torch.tensor((2 * q - 1) / (2 * tau), dtype=torch.float64, requires_grad=True)
    loss = q * p.ipo(d, 0, 0, 0, tau=tau) + (1 - q) * p.ipo(-d, 0, 0, 0, tau=tau)
    assert grad(loss, d)[0].item() == pytest.approx(0, abs=1e-12)


def test_robust_is_unbiased_under_flips_and_never_stops_falling():
    d = torch.linspace(-4, 4, 9, dtype=torch.float64)
    flip = 0.2
    mean = (1 - flip) * p.robust(d, 0, 0, 0, beta=0.5, flip=flip) + flip * p.robust(-d, 0, 0, 0, beta=0.5, flip=flip)
    torch.testing.assert_close(mean, p.dpo(d, 0, 0, 0, beta=0.5))
    far = slope(lambda x: p.robust(x, 0, 0, 0, beta=1.0, flip=flip), 60.0, of=0)
    assert far.item() == pytest.approx(-flip / (1 - 2 * flip))


@pytest.mark.parametrize("flip", [0.5, 0.7, -0.1])
def test_impossible_flip_rates_are_refused(flip):
    for loss in (p.cdpo, p.robust):
        with pytest.raises(ValueError, match="flip"):
            loss(*PAIR, beta=0.1, flip=flip)


# --- identities -------------------------------------------------------------------------------------------------------

number = st.floats(-50, 50).map(lambda x: torch.tensor([x], dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(x=st.tuples(number, number, number, number), beta=st.floats(0.01, 2.0), shift=number)
def test_identities(x, beta, shift):
    c, r, rc, rr = x
    dpo = p.dpo(c, r, rc, rr, beta=beta)
    same = {
        "cdpo": p.cdpo(c, r, rc, rr, beta=beta, flip=0.0),
        "robust": p.robust(c, r, rc, rr, beta=beta, flip=0.0),
        "aot_unpaired": p.aot_unpaired(c, r, rc, rr, beta=beta),
        "aot_paired": p.aot_paired(c, r, rc, rr, beta=beta),
        "length": p.length_desensitised(c, r, rc, rr, shift, 3 * shift, beta=beta, alpha=0.0),
        "local on log-ratios": p.local(c - rc, r - rr, beta=beta),
        "bradley_terry on implicit rewards": p.bradley_terry(beta * (c - rc), beta * (r - rr)),
        "prompt constant in the reference": p.dpo(c, r, rc + shift, rr + shift, beta=beta),
    }
    for name, loss in same.items():
        torch.testing.assert_close(loss, dpo, msg=name, rtol=1e-6, atol=1e-9)
    swapped = p.dpo(r, c, rr, rc, beta=beta)
    margin = beta * ((c - rc) - (r - rr))
    torch.testing.assert_close(swapped - dpo, margin, rtol=1e-6, atol=1e-9)  # nls(-x) - nls(x) = x


def test_simpo_without_margin_at_equal_lengths_is_local():
    c, r, n = PAIR[0], PAIR[1], 7
    torch.testing.assert_close(p.simpo(c / n, r / n, beta=2.1, margin=0.0), p.local(c, r, beta=2.1 / n))


def test_orpo_on_vanishing_probabilities_is_local_at_beta_one():
    c, r = torch.tensor([-40.0]), torch.tensor([-41.5])
    torch.testing.assert_close(p.orpo(c, r), p.local(c, r, beta=1.0))


# --- extremes ---------------------------------------------------------------------------------------------------------

EXTREME = torch.tensor([0.0, -1e-7, -1e-3, -1.0, -1e3, -1e4])


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_extreme_values_stay_finite_in_fp32_with_a_reference(name):
    c, r = (x.reshape(-1).clone().requires_grad_() for x in torch.meshgrid(EXTREME, EXTREME, indexing="ij"))
    zero = torch.zeros_like(c)
    loss = WITH_REFERENCE[name](c, r, zero, zero)
    gradients = grad(loss.sum(), (c, r))
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("name", WITHOUT_REFERENCE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_values_stay_finite_without_a_reference(name, dtype):
    c, r = (x.reshape(-1).to(dtype).requires_grad_() for x in torch.meshgrid(EXTREME, EXTREME, indexing="ij"))
    loss = WITHOUT_REFERENCE[name](c, r)
    gradients = grad(loss.sum(), (c, r))
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in gradients)


def test_log_sigmoid_is_exact_far_out():
    assert loss_at(lambda *x: p.dpo(*x, beta=1.0), 40.0).item() == pytest.approx(math.exp(-40.0), rel=1e-12)
    assert loss_at(lambda *x: p.dpo(*x, beta=1.0), -1e3).item() == pytest.approx(1e3)
