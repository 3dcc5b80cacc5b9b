"""Every further loss of pairs arrives at its own optimum: on two of four answers, and on all pairs of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from evenhand.core import credit
from evenhand.train.rollouts.optimistic import GroupWinRate
from tests.battery.test_bandit import ANSWERS, LENGTHS, LEVEL, REF, build, duels, start, two_answers
from tests.battery.tree import fit_fixed, fit_online, group_of

LOG3 = math.log(3)


def ratios(name: str, parameters: dict, wins: int, losses: int) -> tuple[float, float]:
    """Log-ratios of the first answer and of the second one, after learning that the first won so often."""
    table = fit_fixed(build(name, **parameters), two_answers(wins, losses), start(), steps=300)
    moved = table.distribution().detach() - REF
    return float(moved[0]), float(moved[1])


MARGINS: dict[str, tuple[dict, tuple[int, int], Callable[[float, float], float], float]] = {
    # name: parameters, wins and losses, the score of (a, b), what it must come to
    "exo": ({"beta": 1.0, "flip": 0.1}, (1, 0), lambda a, b: a - b, math.log(9)),
    "discopop": ({"beta": 0.05}, (1, 0), lambda a, b: 0.05 * (a - b), -0.1186),
    "gpo": ({"beta": 0.5}, (3, 1), lambda a, b: 0.5 * (a - b), LOG3 / 2),
    "cauchy_dpo": ({"beta": 0.5}, (3, 1), lambda a, b: 0.5 * (a - b), 1.0),
    "spo_silu": ({"beta": 0.5}, (1, 0), lambda a, b: 0.5 * (a - b + float(REF[0] - REF[1])), 1.27846),
    "nca_pair": ({"beta": 2.0}, (3, 1), lambda a, b: 2 * (a - b), math.log(1.5) + math.log(2)),
    "bco_pair": ({"beta": 2.0}, (3, 1), lambda a, b: 2 * (a - b), 2 * LOG3),
    "sppo": ({"beta": 1.0}, (1, 0), lambda a, b: a - b, 1.0),
    "c2_dpo": ({"beta": 1.0, "weight": 0.5}, (3, 1), lambda a, b: a - b, LOG3),
    "focal_po": ({"beta": 0.5, "focus": 0.0}, (3, 1), lambda a, b: 0.5 * (a - b), LOG3),
    "h_dpo": ({"beta": 0.5, "alpha": 0.8}, (3, 1), lambda a, b: 0.5 * (0.8 * (a - b) - 0.2 * float(REF[0] - REF[1])), LOG3),
    "f_dpo": ({"beta": 0.5}, (3, 1), lambda a, b: 0.5 * (math.exp(-b) - math.exp(-a)), LOG3),
    "chi_po": ({"beta": 0.5}, (3, 1), lambda a, b: 0.5 * (math.exp(a) + a - math.exp(b) - b), LOG3),
}
MARGINS |= {
    "ld_dpo": ({"beta": 0.5, "alpha": 1.0}, (3, 1), lambda a, b: 0.5 * (a - b), LOG3),
    "rebel": ({"eta": 2.0}, (3, 1), lambda a, b: a - b, 2.0 * 0.5),
    "odpo": ({"beta": 0.5}, (3, 1), lambda a, b: 0.5 * (a - b), LOG3),
    "dr_dpo": ({"beta": 0.5, "robustness": 1e6}, (3, 1), lambda a, b: 0.5 * (a - b), LOG3),
    "wpo": ({"beta": 0.5}, (3, 1), lambda a, b: 0.5 * (a - b), LOG3),
    "alpha_dpo": ({"beta": 2.0, "alpha": 0.0, "ratio": 0.0}, (3, 1), lambda a, b: mean_gap(a, b), LOG3),
}


def mean_gap(a: float, b: float) -> float:
    """2 (mean log-prob of the first answer less that of the second)."""
    first, second = (v + float(r) for v, r in ((a, REF[0]), (b, REF[1])))
    return 2 * (first / float(LENGTHS[0]) - second / float(LENGTHS[1]))


@pytest.mark.parametrize("name", MARGINS)
def test_two_answers_go_to_the_optimum_of_the_loss(name):
    parameters, counts, score, known = MARGINS[name]
    assert score(*ratios(name, parameters, *counts)) == pytest.approx(known, abs=3e-3)


@pytest.mark.parametrize(
    ("parameters", "score", "known"),
    [
        ({"divergence": "jensen_shannon"}, lambda a, b: math.log1p(math.exp(-b)) - math.log1p(math.exp(-a)), LOG3),
        ({"divergence": "alpha", "alpha": 0.4}, lambda a, b: (math.exp(-0.4 * b) - math.exp(-0.4 * a)) / 0.4, LOG3),
    ],
)
def test_the_other_divergences(parameters, score, known):
    assert score(*ratios("f_dpo", {"beta": 1.0, **parameters}, 3, 1)) == pytest.approx(known, abs=3e-3)


@pytest.mark.parametrize(("shape", "known"), [("squared", 0.5), ("savage", LOG3), ("logistic", LOG3)])
def test_the_shapes_of_gpo(shape, known):
    """Three to one: 2p - 1 for squares, the log odds for Savage's and the logistic loss."""
    a, b = ratios("gpo", {"beta": 0.5, "shape": shape}, 3, 1)
    assert 0.5 * (a - b) == pytest.approx(known, abs=3e-3)


@pytest.mark.parametrize(
    ("name", "parameters", "counts", "known"),
    [
        ("sppo", {"beta": 1.0}, (1, 0), (0.5, -0.5)),
        ("bco_pair", {"beta": 2.0}, (3, 1), (LOG3 / 2, -LOG3 / 2)),
        ("nca_pair", {"beta": 2.0}, (3, 1), (math.log(1.5) / 2, -math.log(2) / 2)),
        ("c2_dpo", {"beta": 1.0, "weight": 0.5}, (3, 1), (LOG3 / 2, -LOG3 / 2)),
    ],
)
def test_the_level_of_either_answer_is_pinned_too(name, parameters, counts, known):
    assert ratios(name, parameters, *counts) == pytest.approx(known, abs=3e-3)


def test_cal_dpo_between_its_two_parts():
    """b = -a, and s(-2a) = 2 weight (a - 1/2) at beta = 1: by bisection."""
    low, high = 0.5, 2.0
    for _ in range(60):
        a = (low + high) / 2
        low, high = (low, a) if 2 * 0.5 * (a - 0.5) > 1 / (1 + math.exp(2 * a)) else (a, high)
    assert ratios("cal_dpo", {"beta": 1.0, "weight": 0.5}, 1, 0) == pytest.approx((a, -a), abs=3e-3)


@pytest.mark.parametrize(
    ("name", "parameters", "reward"),
    [
        ("dpo_norm", {"beta": 2.0}, lambda logp: 2.0 * (logp - REF) / LENGTHS),
        ("rainbow_po", {"beta": 2.0, "margin": 0.0, "mix": 0.25}, lambda logp: 2.0 * (logp - 0.25 * REF) / LENGTHS),
        ("alphapo", {"beta": 2.0, "alpha": 0.25, "margin": 0.0}, lambda logp: 8.0 * (1 - torch.exp(-logp / LENGTHS / 4))),
        ("cpo", {"beta": 0.5, "likelihood": 0.0}, lambda logp: 0.5 * logp),
    ],
)
def test_all_pairs_lead_to_the_rewards(name, parameters, reward):
    """Every pair as often as Bradley-Terry says: what the method calls an answer's reward is its level, up to a constant."""
    found = reward(fit_fixed(build(name, **parameters), duels(), start(), steps=800).distribution().detach())
    torch.testing.assert_close(found - found[0], LEVEL - LEVEL[0], rtol=0, atol=5e-3)


def test_repo_stops_exactly_at_its_margin():
    table = fit_fixed(build("repo", margin=0.7), two_answers(1, 0), start(), steps=300, rate=0.005)
    mean = table.distribution().detach() / LENGTHS
    assert 0.7 <= float(mean[0] - mean[1]) < 0.75, "past its margin nothing moves it but the optimizer's momentum"


def test_apo_down_lowers_the_chosen_answer():
    a, b = ratios("apo_down", {"beta": 0.5}, 1, 0)
    assert b < a < 0


def test_dpop_keeps_the_chosen_answer_where_dpo_lets_it_fall():
    """Both answers share their first branch: pushing the worse one down takes the better one along."""
    rows = [r for r in duels() if r.completions[0].tokens == (1, 3, 0) and r.completions[1].tokens == (1, 0)]
    kept = fit_fixed(build("dpop"), rows, start(), steps=100).distribution().detach() - REF
    assert kept[0] >= -1e-3


def test_dr_dpo_takes_the_rarer_label_for_noise():
    """Three to one at beta' = 1/2: sum_y n_y exp(-l_y / beta') is largest where s^2 (n_+ ...) balances, past DPO's log odds."""
    a, b = ratios("dr_dpo", {"beta": 0.5, "robustness": 2.0}, 3, 1)
    # minimise -2 log(3 s(x)^(1/2) + s(-x)^(1/2)): d/dx gives 3 s(x)^(1/2) s(-x) = s(-x)^(1/2) s(x), so s(x) / s(-x) = 9
    assert 0.5 * (a - b) == pytest.approx(math.log(9), abs=5e-3)


def test_beta_dpo_at_no_change_and_no_filter_is_dpo():
    a, b = ratios("beta_dpo", {"beta": 0.5, "alpha": 0.0, "drop": 0.0}, 3, 1)
    assert 0.5 * (a - b) == pytest.approx(LOG3, abs=3e-3)


def test_tdpo_arrives_where_its_margin_balances():
    """One token each, so that the KL of a node is the same for both answers and tdpo is dpo there."""
    a, b = ratios("tdpo2", {"beta": 0.5, "alpha": 0.0}, 3, 1)
    assert 0.5 * (a - b) == pytest.approx(LOG3, abs=3e-3)


def test_bco_separates_good_from_bad_around_the_running_mean():
    """Of two answers, each good three times in four or one in four: reward - shift is the log odds of being good."""
    rows = [
        group_of((ANSWERS[i],), (float(good),)) for i, good in ((0, 1), (0, 1), (0, 1), (0, 0), (1, 0), (1, 0), (1, 0), (1, 1))
    ]
    moved = fit_fixed(build("bco", beta=2.0), rows, start(), steps=400).distribution().detach() - REF
    assert 2 * float(moved[0] - moved[1]) == pytest.approx(2 * LOG3, abs=2e-2)


# ---- several rated answers, and fresh pairs ----------------------------------------------------------------------------------

RATINGS = torch.tensor([1.0, -0.5, 0.0, 0.5], dtype=torch.float64)


def rated(name: str, **parameters) -> torch.Tensor:
    """Log-ratios of all four answers after learning from them as one rated group."""
    rows = [group_of(ANSWERS, tuple(RATINGS.tolist()))]
    return fit_fixed(build(name, **parameters), rows, start(), steps=600).distribution().detach() - REF


def test_infonca_learns_the_tilted_reference():
    found = 0.5 * rated("infonca", beta=0.5, alpha=0.8)
    torch.testing.assert_close(found - found[0], (RATINGS - RATINGS[0]) / 0.8, rtol=0, atol=3e-3)


def test_nca_orders_the_answers_and_pins_their_level():
    """beta u = log(k w) as far as probabilities that sum to one allow it."""
    scores = 4 * rated("nca", beta=4.0, alpha=2.0)
    assert scores.argsort().tolist() == RATINGS.argsort().tolist()
    assert float((scores.exp() / 4 - torch.softmax(RATINGS / 2.0, 0)).abs().max()) < 0.1


def test_qrpo_learns_the_quantiles():
    """Quantiles 1, 1/4, 1/2, 3/4: beta u = q up to the constant that normalises, which four answers shift a little."""
    found = 0.5 * rated("qrpo", beta=0.5)
    assert found.argsort().tolist() == RATINGS.argsort().tolist()
    assert float(found[0] - found[1]) == pytest.approx(0.75, abs=0.15)


def test_a_star_po_learns_the_tilted_reference():
    """At value_temperature = beta the regression is solved exactly by ref exp(r / beta) / Z."""
    reward = dict(zip(ANSWERS, RATINGS.tolist(), strict=True))
    method = build("a_star_po", beta=0.5, value_temperature=0.5, completions_per_prompt=64)
    found = fit_online(method, reward, start(), steps=150, rate=0.1).distribution().detach()
    torch.testing.assert_close(found, (REF + RATINGS / 0.5).log_softmax(0), rtol=0, atol=0.03)


@pytest.mark.parametrize("name", ["xpo", "vpo_online"])
def test_optimism_spreads_the_policy(name):
    """With a large coefficient what is known already gains less than with none."""
    reward = dict(zip(ANSWERS, RATINGS.tolist(), strict=True))

    def gained(**parameters) -> float:
        found = fit_online(build(name, **parameters), reward, start(), steps=40, rate=0.05, prompts=3)
        return float((found.distribution().detach() - REF)[0])

    assert gained(optimism=0.2) < gained(optimism=0.0)


def test_win_rates_of_a_group():
    """Against three rivals, ties by halves; an unscored answer has none and is nobody's rival."""
    shaped = GroupWinRate()(group_of((*ANSWERS, ANSWERS[0]), (2.0, 1.0, 1.0, 0.0, math.nan)))
    assert shaped.scores[:4] == pytest.approx((1.0, 0.5, 0.5, 0.0))
    assert math.isnan(shaped.scores[4])


def test_spo_has_half_the_credit_of_ranks():
    scores = torch.tensor([[2.0, 1.0, 1.0, 0.0], [0.3, -2.0, 5.0, 0.3]])
    rates = torch.tensor([GroupWinRate()(group_of(ANSWERS, tuple(row))).scores for row in scores.tolist()])
    torch.testing.assert_close(credit.centre(rates), credit.rank(scores) / 2)
