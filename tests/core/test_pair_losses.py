"""Every further pair loss against its formula in plain arithmetic, its slopes at the start, its optimum, and far out in fp32."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.autograd import grad, gradcheck

from evenhand.core import pair_divergence as divergence
from evenhand.core import pair_length as length
from evenhand.core import pair_margin as margin
from evenhand.core import pair_sides as sides
from evenhand.core import preference, stable

B = 0.1
LOG2 = math.log(2)


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def nls(x: float) -> float:
    return math.log1p(math.exp(-x))


@dataclass(frozen=True)
class Case:
    """A loss of (a, b) with ref = 0, its formula, its value and its slopes by a and b, in units of beta, at a = b = 0."""

    loss: Callable
    formula: Callable[[float, float], float]
    at_start: tuple[float, float, float]
    beta: float = B
    misranked: tuple[int, int] = (-1, 1)
    """Signs that no slope may be against far on the wrong side, a = -1e4 and b = 1e4."""


def of(function, **fixed):
    return lambda a, b: function(a, b, torch.zeros_like(a), torch.zeros_like(b), **fixed)


def discopop(a, b):
    x = 0.05 * (a - b)
    m = s(x / 0.05)
    return (1 - m) * nls(x) + m * math.exp(-x)


def exo(a, b):
    x, e = B * (a - b), 1e-3
    return s(x) * (math.log(s(x)) - math.log(1 - e)) + s(-x) * (math.log(s(-x)) - math.log(e))


PHI = lambda t: math.exp(t) + t  # noqa: E731
CASES = {
    "exo": Case(of(margin.exo, beta=B, flip=1e-3), exo, (2.7612, -1.7267, 1.7267)),
    "discopop": Case(of(margin.discopop, beta=0.05, width=0.05), discopop, (0.8466, 0.7843, -0.7843), 0.05),
    "squared": Case(of(margin.squared, beta=B), lambda a, b: (1 - B * (a - b)) ** 2, (1.0, -2.0, 2.0)),
    "truncated_squared": Case(
        of(margin.truncated_squared, beta=B), lambda a, b: max(0.0, 1 - B * (a - b)) ** 2, (1.0, -2.0, 2.0)
    ),
    "exponential": Case(of(margin.exponential, beta=B), lambda a, b: math.exp(-B * (a - b)), (1.0, -1.0, 1.0)),
    "savage": Case(of(margin.savage, beta=B), lambda a, b: s(-B * (a - b)) ** 2, (0.25, -0.25, 0.25)),
    "focal": Case(
        of(margin.focal, beta=B, focus=1.0), lambda a, b: s(B * (a - b)) * nls(B * (a - b)), (LOG2 / 2, -0.25, 0.25)
    ),
    "cauchy": Case(
        of(margin.cauchy, beta=B), lambda a, b: -math.log(math.atan(B * (a - b)) / math.pi + 0.5),
        (LOG2, -2 / math.pi, 2 / math.pi),
    ),
    "silu_margin": Case(
        lambda a, b: margin.silu_margin(a, b, beta=B), lambda a, b: -B * (a - b) * s(-B * (a - b)), (0.0, -0.5, 0.5)
    ),
    "nca": Case(
        of(sides.nca, beta=B), lambda a, b: nls(B * a) + nls(-B * a) / 2 + nls(-B * b) / 2, (2 * LOG2, -0.25, 0.25)
    ),
    "bco_pair": Case(of(sides.bco_pair, beta=B), lambda a, b: nls(B * a) + nls(-B * b), (2 * LOG2, -0.5, 0.5)),
    "bco_pair shifted": Case(
        of(sides.bco_pair, beta=B, shift=0.7), lambda a, b: nls(B * a - 0.7) + nls(0.7 - B * b),
        (nls(-0.7) + nls(0.7), -s(0.7), s(-0.7)),
    ),
    "sppo": Case(of(sides.sppo, beta=B), lambda a, b: (a - 5) ** 2 + (b + 5) ** 2, (50.0, -100.0, 100.0)),
    "apo_zero": Case(of(sides.apo_zero, beta=B), lambda a, b: s(-B * a) + s(B * b), (1.0, -0.25, 0.25)),
    "apo_down": Case(
        of(sides.apo_down, beta=B), lambda a, b: s(B * a) + s(-B * (a - b)), (1.0, 0.0, 0.25), misranked=(0, 1)
    ),
    "cal_dpo": Case(
        of(sides.cal_dpo, beta=B, weight=0.5), lambda a, b: nls(a - b) + 0.5 * ((a - 5) ** 2 + (b + 5) ** 2),
        (LOG2 + 25, -55.0, 55.0),
    ),
    "c2_dpo": Case(
        of(sides.c2_dpo, beta=B, weight=2e-4), lambda a, b: nls(B * (a - b)) + 2e-4 * (a + b) ** 2, (LOG2, -0.5, 0.5)
    ),
    "positive": Case(
        of(sides.positive, beta=B, weight=5.0), lambda a, b: nls(B * (a - b - 5 * max(0.0, -a))), (LOG2, -0.5, 0.5)
    ),
    "balanced": Case(
        of(sides.balanced, beta=B, alpha=0.5), lambda a, b: nls(min(B * a, -0.5 * B * b)), (LOG2, -0.25, 0.125)
    ),
    "minor": Case(of(sides.minor, beta=B), lambda a, b: nls(B * (a - max(0.0, b))), (LOG2, -0.5, 0.0)),
    "shifted": Case(of(sides.shifted, beta=B, share=0.8), lambda a, b: nls(B * (a - 0.8 * b)), (LOG2, -0.5, 0.4)),
    "entropy_scaled": Case(
        of(sides.entropy_scaled, beta=B, alpha=0.9), lambda a, b: nls(B * 0.9 * (a - b)), (LOG2, -0.45, 0.45)
    ),
    "calibrated": Case(
        of(sides.calibrated, beta=B, weight=-0.3), lambda a, b: nls(B * (a - b)) - 0.3 * B * a, (LOG2, -0.8, 0.5)
    ),
    "f_dpo forward": Case(
        of(divergence.f_dpo_forward_kl, beta=B), lambda a, b: nls(B * (math.exp(-b) - math.exp(-a))), (LOG2, -0.5, 0.5)
    ),
    "f_dpo js": Case(
        of(divergence.f_dpo_jensen_shannon, beta=B), lambda a, b: nls(B * (nls(b) - nls(a))), (LOG2, -0.25, 0.25)
    ),
    "f_dpo alpha": Case(
        of(divergence.f_dpo_alpha, beta=B, alpha=0.4),
        lambda a, b: nls(B * (math.exp(-0.4 * b) - math.exp(-0.4 * a)) / 0.4), (LOG2, -0.5, 0.5),
    ),
    "chi_po": Case(of(divergence.chi_po, beta=B), lambda a, b: nls(B * (PHI(a) - PHI(b))), (LOG2, -1.0, 1.0)),
    "chi_po clipped": Case(
        of(divergence.chi_po, beta=B, limit=0.2), lambda a, b: nls(max(-0.2, min(0.2, B * (PHI(a) - PHI(b))))),
        (LOG2, -1.0, 1.0),
    ),
    "dpo_norm": Case(of(length.dpo_norm, beta=B), lambda a, b: nls(B * (a - b)), (LOG2, -0.5, 0.5)),
    "rainbow": Case(
        of(length.rainbow, beta=B, margin=2.0, mix=0.25), lambda a, b: nls(B * (a - b - 1.5)), (nls(-0.15), -s(0.15), s(0.15))
    ),
    "relu_margin": Case(
        lambda a, b: length.relu_margin(a, b, margin=0.4), lambda a, b: max(0.0, 0.4 - a + b), (0.4, -10.0, 10.0)
    ),
}  # fmt: skip
POINTS = ((0.3, -0.8), (-1.7, 0.4), (2.5, 2.0), (-0.6, -3.0), (1.2, -1.1))


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


def slopes(loss, a, b, dtype=torch.float64):
    inputs = [torch.tensor([v], dtype=dtype, requires_grad=True) for v in (a, b)]
    value = loss(*inputs)
    found = grad(value.sum(), inputs, materialize_grads=True)
    return float(value.detach()), *(float(g) for g in found)


def test_formula(case):
    a, b = torch.tensor(POINTS, dtype=torch.float64).T
    known = torch.tensor([case.formula(*p) for p in POINTS], dtype=torch.float64)
    torch.testing.assert_close(case.loss(a, b), known)


def test_value_and_slopes_at_the_start(case):
    value, by_a, by_b = slopes(case.loss, 0.0, 0.0)
    assert (value, by_a / case.beta, by_b / case.beta) == pytest.approx(case.at_start, abs=1e-4)


def test_slopes_by_finite_differences(case):
    if case is CASES["focal"]:
        pytest.skip("its factor is held constant: see test_focal_never_turns_round")
    inputs = [torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in zip(*POINTS, strict=True)]
    assert gradcheck(case.loss, inputs)


@pytest.mark.parametrize("a", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("b", [-1e4, 0.0, 1e4])
def test_far_out_in_single_precision(case, a, b):
    assert all(map(math.isfinite, slopes(case.loss, a, b, torch.float32)))


def test_far_on_the_wrong_side_no_slope_is_reversed(case):
    _, by_a, by_b = slopes(case.loss, -1e4, 1e4, torch.float32)
    assert by_a * case.misranked[0] >= 0
    assert by_b * case.misranked[1] >= 0


def minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """By golden section, of a function with one minimum in between."""
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-9:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if function(left) < function(right) else (left, high)
    return (low + high) / 2


def at(name: str) -> Callable[[float], float]:
    """The loss as a function of a, b = 0."""
    return lambda a: float(CASES[name].loss(torch.tensor([a], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("name", "low", "high", "beta", "known"),
    [
        ("exo", -40.0, 140.0, B, math.log(0.999 / 0.001)),
        ("squared", -5.0, 40.0, B, 1.0),
        ("silu_margin", -5.0, 40.0, B, 1.27846),
        ("nca", -20.0, 40.0, B, LOG2),
        ("sppo", -20.0, 40.0, B, 0.5),
        ("discopop", -20.0, 1.4, 0.05, -0.1186),
    ],
)
def test_where_it_is_lowest(name, low, high, beta, known):
    assert beta * minimum(at(name), low, high) == pytest.approx(known, abs=1e-4)


def test_discopop_has_a_hill_between_the_start_and_the_right_side():
    top = minimum(lambda a: -at("discopop")(a), 0.0, 20.0)
    assert 0.05 * top == pytest.approx(0.0720, abs=1e-4)
    assert at("discopop")(top) == pytest.approx(0.8783, abs=1e-4)
    assert at("discopop")(-0.1186 / 0.05) == pytest.approx(0.7859, abs=1e-4)


def test_silu_is_the_logistic_loss_less_an_entropy():
    for z in (-3.0, -0.4, 0.0, 1.2785, 4.0):
        p = s(z)
        entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
        assert at("silu_margin")(z / B) == pytest.approx(nls(z) - entropy)
    assert at("silu_margin")(1.27846 / B) == pytest.approx(-0.2785, abs=1e-4)


def test_exo_needs_smoothing():
    with pytest.raises(ValueError, match="infinite"):
        margin.exo(*torch.zeros(4, 1), beta=B, flip=0.0)


def test_exo_gives_up_what_is_far_wrong():
    """Slope by x: s(x) s(-x) (x - logit(1 - e)), which vanishes for x -> -infinity where DPO's is 1."""
    for x in (-30.0, -2.0, 3.0):
        expected = B * s(x) * s(-x) * (x - math.log(0.999 / 0.001))
        assert slopes(CASES["exo"].loss, x / B, 0.0)[1] == pytest.approx(expected)
    assert slopes(CASES["exo"].loss, -300.0, 0.0)[1] == pytest.approx(0, abs=1e-10)


def test_focal_never_turns_round():
    """With the factor in the graph the slope would be positive below x = -.541 at focus 1."""
    for x in (-20.0, -0.6, 0.0, 3.0):
        assert slopes(CASES["focal"].loss, x / B, 0.0)[1] == pytest.approx(-B * s(x) * s(-x))


def test_apo_down_lowers_both():
    """0 by a wherever b = 0; once b < 0 the chosen answer is pushed down."""
    assert slopes(CASES["apo_down"].loss, 4.0, 0.0)[1] == pytest.approx(0, abs=1e-12)
    _, by_a, by_b = slopes(CASES["apo_down"].loss, 0.0, -5.0)
    assert by_a > 0
    assert by_b > 0


def test_apo_zero_is_kto_with_no_reference_point():
    a, b = torch.tensor([0.4, -2.0]), torch.tensor([1.0, -0.3])
    zero, good = torch.zeros(2), torch.tensor([True, True])
    halves = [preference.kto(v, zero, label, 0.0, beta=B) for v, label in ((a, good), (b, ~good))]
    torch.testing.assert_close(CASES["apo_zero"].loss(a, b), halves[0] + halves[1])


@pytest.mark.parametrize("name", ["nca", "bco_pair", "sppo", "apo_zero", "cal_dpo", "minor"])
def test_a_common_level_matters_unlike_in_dpo(name):
    a, b = torch.tensor([2.0]), torch.tensor([-2.0])
    assert abs(float(CASES[name].loss(a - 8.0, b - 8.0) - CASES[name].loss(a, b))) > 1e-3


def test_positive_multiplies_the_slope_of_a_fallen_answer():
    for a, factor in ((-0.5, 6.0), (0.5, 1.0)):
        x = B * (a - 5 * max(0.0, -a))
        assert slopes(CASES["positive"].loss, a, 0.0)[1] == pytest.approx(-B * factor * s(-x))


def test_minor_leaves_a_rejected_answer_below_the_reference_alone():
    assert slopes(CASES["minor"].loss, 0.3, -2.0)[2] == 0.0
    assert slopes(CASES["minor"].loss, 0.3, 2.0)[2] > 0


def test_balanced_pushes_the_side_that_lags():
    assert slopes(CASES["balanced"].loss, 0.1, -5.0)[1:] == pytest.approx((-B * s(-B * 0.1), 0.0))
    assert slopes(CASES["balanced"].loss, 5.0, -0.1)[1:] == pytest.approx((0.0, 0.5 * B * s(-0.5 * B * 0.1)))


@pytest.mark.parametrize(("name", "bound"), [("f_dpo forward", nls(B)), ("f_dpo js", nls(B * LOG2))])
def test_bounded_scores_stop_pushing_up(name, bound):
    """The score of a is at most 0 (less the -1 of b = 0), or log 2 above that of b = 0: the loss never falls below."""
    value, by_a, _ = slopes(CASES[name].loss, 60.0, 0.0)
    assert value == pytest.approx(bound)
    assert by_a == pytest.approx(0, abs=1e-12)


def test_f_dpo_between_its_ends():
    a, b = torch.tensor(POINTS, dtype=torch.float64).T
    near_reverse = of(divergence.f_dpo_alpha, beta=B, alpha=1e-7)(a, b)
    near_forward = of(divergence.f_dpo_alpha, beta=B, alpha=1 - 1e-9)(a, b)
    torch.testing.assert_close(near_reverse, of(preference.dpo, beta=B)(a, b), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(near_forward, CASES["f_dpo forward"].loss(a, b), rtol=1e-6, atol=1e-6)
    for alpha in (0.0, 1.0):
        with pytest.raises(ValueError, match="alpha"):
            of(divergence.f_dpo_alpha, beta=B, alpha=alpha)(a, b)


def test_chi_po_near_the_reference_is_dpo_at_twice_the_beta():
    a, b = torch.tensor([1e-4], dtype=torch.float64), torch.tensor([-2e-4], dtype=torch.float64)
    torch.testing.assert_close(CASES["chi_po"].loss(a, b), of(preference.dpo, beta=2 * B)(a, b), rtol=1e-8, atol=0)
    assert slopes(CASES["chi_po clipped"].loss, 5.0, 0.0)[1] == 0.0


# ---- length-means ---------------------------------------------------------------------------------------------------------

MEANS = torch.tensor([[-0.5, -1.7, -0.2], [-0.4, -0.3, -2.0]], dtype=torch.float64)


def test_alpha_po_by_hand_and_as_simpo():
    reward = lambda m, alpha: (1 - math.exp(-alpha * m)) / alpha  # noqa: E731
    known = [nls(2.5 * (reward(c, 0.25) - reward(r, 0.25)) - 0.1) for c, r in MEANS.T.tolist()]
    found = length.alpha_po(*MEANS, beta=2.5, alpha=0.25, margin=0.1)
    torch.testing.assert_close(found, torch.tensor(known, dtype=torch.float64))
    for alpha in (0.0, 1e-9):
        found = length.alpha_po(*MEANS, beta=2.5, alpha=alpha, margin=0.1)
        torch.testing.assert_close(found, preference.simpo(*MEANS, beta=2.5, margin=0.1), rtol=1e-6, atol=1e-8)


def test_alpha_po_is_steeper_where_an_answer_is_unlikely():
    """dr/dm = e^(-alpha m), 5.47 at m = -1.7 and alpha = 1; one side alone, the other at 0."""
    m = torch.tensor([-1.7], dtype=torch.float64, requires_grad=True)
    loss = length.alpha_po(m, torch.zeros_like(m), beta=1.0, alpha=1.0, margin=0.0)
    slope = grad(loss.sum(), m)[0]
    assert float(slope) / -s(math.exp(1.7) - 1) == pytest.approx(5.4739, abs=1e-3)


def test_absolute_odds_classify_each_answer():
    lo = lambda m: m - math.log(1 - math.exp(m))  # noqa: E731
    known = [nls(lo(c)) + nls(-lo(r)) for c, r in MEANS.T.tolist()]
    found = length.absolute_odds(*MEANS)
    torch.testing.assert_close(found, torch.tensor(known, dtype=torch.float64))
    torch.testing.assert_close(found[0], -MEANS[0, 0] - math.log(1 - math.exp(-0.4)) * 1.0)  # nls(lo(m)) = -m


@pytest.mark.parametrize("level", [-1e4, -800.0, -1e-7, 0.0])
@pytest.mark.parametrize("loss", [
    lambda c, r: length.alpha_po(c, r, beta=2.5, alpha=0.25, margin=0.1), length.absolute_odds,
])  # fmt: skip
def test_means_far_out_in_single_precision(loss, level):
    for pair in ((level, -1.0), (-1.0, level), (level, level)):
        c, r = (torch.tensor([v], requires_grad=True) for v in pair)
        value = loss(c, r)
        assert all(g.isfinite().all() for g in (value, *grad(value.sum(), (c, r))))


# ---- reductions of the functions themselves --------------------------------------------------------------------------------


def test_what_reduces_to_dpo():
    a, b = torch.tensor(POINTS, dtype=torch.float64).T
    dpo = of(preference.dpo, beta=B)(a, b)
    positive = a.abs(), b.abs()
    same = [
        (of(margin.focal, beta=B, focus=0.0)(a, b), dpo),
        (of(sides.c2_dpo, beta=B, weight=0.0)(a, b), dpo),
        (of(sides.positive, beta=B, weight=0.0)(a, b), dpo),
        (of(sides.shifted, beta=B, share=1.0)(a, b), dpo),
        (of(sides.entropy_scaled, beta=B, alpha=1.0)(a, b), dpo),
        (of(sides.calibrated, beta=B, weight=0.0)(a, b), dpo),
        (of(length.dpo_norm, beta=B)(a, b), dpo),
        (of(sides.minor, beta=B)(*positive), of(preference.dpo, beta=B)(*positive)),
        (of(sides.positive, beta=B, weight=7.0)(*positive), of(preference.dpo, beta=B)(*positive)),
    ]
    for found, known in same:
        torch.testing.assert_close(found, known)


def test_gpo_squared_is_ipo_in_other_units():
    a, b = torch.tensor(POINTS, dtype=torch.float64).T
    torch.testing.assert_close(of(margin.squared, beta=B)(a, b), B**2 * of(preference.ipo, tau=B / 2)(a, b))


def test_bco_is_never_below_dpo():
    a, b = torch.tensor(POINTS, dtype=torch.float64).T
    assert (CASES["bco_pair"].loss(a, b) >= of(preference.dpo, beta=B)(a, b)).all()


def test_rainbow_between_a_reference_and_a_margin():
    c, r = MEANS
    torch.testing.assert_close(length.rainbow(c, r, r, c, beta=2.0, margin=9.0, mix=1.0), length.dpo_norm(c, r, r, c, beta=2.0))
    torch.testing.assert_close(
        length.rainbow(c, r, r, c, beta=2.0, margin=0.3, mix=0.0), preference.simpo(c, r, beta=2.0, margin=0.6)
    )


def test_exponentials_go_on_as_their_tangents():
    x = torch.tensor([-3.0, 0.0, 20.0, 23.0], dtype=torch.float64)
    known = [math.exp(-3.0), 1.0, math.exp(20.0), 4 * math.exp(20.0)]
    torch.testing.assert_close(stable.exp(x), torch.tensor(known, dtype=torch.float64))
    torch.testing.assert_close(stable.expm1(x), torch.tensor([k - 1 for k in known], dtype=torch.float64))
