"""Algorithm 1 in the linear case: closed forms on problems that can be worked out by hand."""

import math

import pytest
import torch

from evenhand.core import kl
from evenhand.theory import exploration as e
from evenhand.theory.rows import claims
from tests.conftest import ROOT


def two_answers(eta=0.5):
    """One prompt, two answers with features 1 and -1 of one number, an even start, reward +-0.8."""
    features = torch.tensor([[[1.0], [-1.0]]], dtype=torch.float64)
    even = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    return e.LinearProblem(features, torch.tensor([0.8], dtype=torch.float64), even, eta)


def test_the_main_agent_is_the_tilted_start():
    p = two_answers(eta=0.5)
    odds = math.exp(2 * 0.8 / 0.5)  # exp of the rewards' difference over eta
    assert e.main_policy(p, p.theta).exp()[0, 0].item() == pytest.approx(odds / (1 + odds))


def test_information_is_the_distance_of_mean_features_over_what_has_been_seen():
    p = two_answers()
    first, second = (torch.tensor([[q, 1 - q]], dtype=torch.float64).log() for q in (0.5, 0.9))
    sigma = torch.tensor([[4.0]], dtype=torch.float64)
    assert e.information(p, sigma, first, second).item() == pytest.approx(0.8 / 2)  # means 0 and 0.8, root of 4
    assert e.information(p, sigma, first, first).item() == 0.0
    # pairs of an even policy differ by 2, 0, 0, -2 with equal chance
    assert e.covariance(p, first, first).item() == pytest.approx(2.0)


def test_the_enhancer_goes_as_far_as_its_information_pays_for():
    """In one dimension it is the member of the set on the border: eta KL = |difference of means| / root of sigma."""
    p, sigma = two_answers(eta=2.0), torch.tensor([[4.0]], dtype=torch.float64)
    found = e.enhancer(p, sigma, p.start)
    q = found.exp()[0, 0].item()
    spent = 2.0 * (q * math.log(q / 0.5) + (1 - q) * math.log((1 - q) / 0.5))
    assert spent == pytest.approx(abs(2 * q - 1) / 2, rel=1e-4)
    assert 0.4 < abs(2 * q - 1) < 1


def test_best_of_n_of_the_main_agent_is_counted_by_rank():
    logp = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    reward = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)
    chance = e.best_of(logp, reward, 2).exp()[0].tolist()
    assert chance == pytest.approx([1 - 0.8**2, 0.5**2, 0.8**2 - 0.5**2], abs=1e-9)


def test_rounds_begin_at_the_start_and_learn():
    p = e.linear_problem()
    told = e.rounds(p, e.PARTNERS["start"], count=4, batch=40)
    first = e.value(p, e.main_policy(p, p.theta)) - 0  # the best policy's value, and the start's, whose KL is 0
    assert told[0].gap == pytest.approx((first - (p.start.exp() * p.reward).sum(-1).mean()).item())
    assert told[-1].gap < 0.5 * told[0].gap
    assert [r.least_seen for r in told] == sorted(r.least_seen for r in told)
    assert told[0].least_seen == 1.0


def test_the_value_of_the_best_policy_is_the_log_of_its_normaliser():
    """J(pi*) = eta log E_start exp(r / eta), the closed form of equation 2's optimum."""
    p = e.linear_problem(eta=0.7)
    best = 0.7 * (p.start + p.reward / 0.7).logsumexp(-1).mean()
    found = e.main_policy(p, p.theta)
    assert e.value(p, found).item() == pytest.approx(best.item())
    assert e.divergence(found, p.start).item() == pytest.approx(kl.exact(found, p.start).mean().item())


def test_the_page_of_theory_has_every_claim_as_it_stands():
    """Texts and what is expected; the measured digits are of the machine that wrote the page."""
    text = (ROOT / "docs" / "results" / "theory.md").read_text()
    rows = [line.split(" | ") for line in text[text.index("## The table") :].splitlines() if line.startswith("| ")][1:]
    told = claims()
    expected = [(r.text, f"0 (to {r.tolerance:.0e})" if r.expected == "0" else r.expected) for r in told]
    assert [(row[0].removeprefix("| "), row[1]) for row in rows] == expected, "evenhand theory --page docs/results/theory.md"
    assert f"**{len(told)} of {len(told)} claims hold.**" in text
    assert "does not hold" not in text
