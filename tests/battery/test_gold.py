"""A gold answer beside pairs, single rated answers beside a learned value, and what a token's probability weighs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from evenhand.core import k_answers, likelihood
from evenhand.objectives import gold
from evenhand.train.examples import Example, assemble, with_pairs
from tests.battery.test_bandit import ANSWERS, REF, build, start
from tests.battery.test_reductions import built, step
from tests.battery.tree import fit_fixed, group_of, tokenise
from tests.battery.world import items_for, same


def batch_of(*scores: tuple[float, ...]):
    """One batch with a prompt for each tuple of scores."""
    answers = (*ANSWERS, *ANSWERS)
    items = [with_pairs(Example(tokens=tokenise(group_of(answers[: len(s)], s, str(n))))) for n, s in enumerate(scores)]
    return assemble([replace(i, per_completion={"score": s}) for i, s in zip(items, scores, strict=True)])


def test_the_best_of_three_is_gold_and_in_no_pair():
    """A ranking of four, a pair, a tie of three below nothing, and a group with two of three scored."""
    batch = batch_of((1.0, 3.0, 0.0, 2.0), (0.0, 1.0), (5.0, 5.0, 1.0), (math.nan, 1.0, 0.0))
    assert gold.often(batch, torch.float32).tolist() == [0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0]
    cut = gold.below_the_best(batch)
    kept = {tuple(p): w for p, w in zip(cut.pairs.tolist(), cut.pair_weight.tolist(), strict=True)}
    third = pytest.approx(1 / 3, abs=1e-6)
    assert kept == {(0, 2): third, (3, 0): third, (3, 2): third, (5, 4): 1.0, (7, 8): 1.0, (10, 11): 1.0}
    assert len(cut.margin) == 6


def test_tpo_of_plain_pairs_is_cpo():
    items = items_for(built("cpo"))
    items = [replace(i, per_completion={"score": i.tokens.group.scores}) for i in items]
    same(step(built("tpo", beta=0.1), items), step(built("cpo", beta=0.1, likelihood=1.0), items))


def test_tpo_imitates_the_best_and_ranks_the_rest():
    """Nothing says how often the gold answer is to be compared: it takes all that likelihood gives."""
    method = build("tpo", beta=1.0, likelihood=1.0)
    found = fit_fixed(method, [group_of(ANSWERS, (3.0, 0.0, 1.0, 2.0))], start(), steps=300).distribution().detach()
    assert found.argmax() == 0
    assert float(found[0].exp()) > 0.9
    assert found[3] > found[2] > found[1]


# ---- direct reward optimisation ----------------------------------------------------------------------------


def test_with_the_value_at_its_optimum_two_answers_are_rebel_s_square():
    u = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True)
    reward, tau = torch.tensor([1.0, 0.2], dtype=torch.float64), 0.5
    best = (reward - tau * u).mean()
    loss = k_answers.direct_reward(u, reward, best, tau=tau).sum()
    gap = (u[0] - u[1]) - (reward[0] - reward[1]) / tau
    assert loss.item() == pytest.approx((tau**2 * gap**2 / 4).item())
    (theirs,) = torch.autograd.grad(tau**2 * gap**2 / 4, u, retain_graph=True)
    (ours,) = torch.autograd.grad(k_answers.direct_reward(u, reward, best.detach(), tau=tau).sum(), u)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("critic", ["head", "separate"])
def test_dro_learns_the_tilted_reference_and_its_soft_value(critic):
    """r = V + tau log(pi / ref) is solved exactly by ref exp(r / tau) / Z and V = tau log Z."""
    rating, tau = torch.tensor([1.0, -0.5, 0.0, 0.5], dtype=torch.float64), 0.8
    rows = [group_of(ANSWERS, tuple(rating.tolist()))]
    table = fit_fixed(build("dro", tau=tau, critic=critic), rows, start(), steps=1500, rate=0.05)
    tilted = REF + rating / tau
    torch.testing.assert_close(table.distribution().detach(), tilted.log_softmax(0), rtol=0, atol=5e-3)
    assert float(table.value.detach()[0]) == pytest.approx(tau * float(tilted.logsumexp(0)), abs=5e-3)


# ---- likelihood by probability ----------------------------------------------------------------------------


def test_the_gradient_of_dft_is_that_of_the_probability():
    logp = torch.tensor([-0.1, -2.0, -9.0, -800.0, -1e4], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(likelihood.by_probability(logp).sum(), logp)
    (known,) = torch.autograd.grad(-logp.exp().sum(), logp)
    torch.testing.assert_close(found, known, rtol=1e-12, atol=0)
    assert torch.isfinite(likelihood.by_probability(logp)).all()


def test_dft_is_sft_where_every_token_is_certain():
    logp = torch.zeros(3, requires_grad=True)
    (found,) = torch.autograd.grad(likelihood.by_probability(logp).sum(), logp)
    (known,) = torch.autograd.grad(likelihood.even(logp).sum(), logp)
    assert found.tolist() == known.tolist() == [-1.0, -1.0, -1.0]
