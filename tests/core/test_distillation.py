"""Distillation's divergences: limits, bounds, exact gradients, and what the sampled form estimates."""

from __future__ import annotations

import math

import pytest
import torch

from evenhand.core import kl
from evenhand.core.distillation import generalised_jsd, token_advantage, weighted_early

STUDENT = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
TEACHER = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64).log()


def test_a_literal():
    """M = (0.3, 0.25, 0.45): half of KL(T, M) + half of KL(S, M), summed by hand."""
    t, s, m = (0.1, 0.2, 0.7), (0.5, 0.3, 0.2), (0.3, 0.25, 0.45)
    known = sum(0.5 * (a * math.log(a / c) + b * math.log(b / c)) for a, b, c in zip(t, s, m, strict=True))
    assert float(generalised_jsd(STUDENT, TEACHER, beta=0.5)) == pytest.approx(known, rel=1e-12)


def test_its_limits_are_the_two_divergences():
    """JSD / beta -> KL(T, S) as beta -> 0, JSD / (1 - beta) -> KL(S, T) as beta -> 1; at the ends those themselves."""
    forward = sum(t * math.log(t / s) for t, s in ((0.1, 0.5), (0.2, 0.3), (0.7, 0.2)))
    reverse = sum(s * math.log(s / t) for t, s in ((0.1, 0.5), (0.2, 0.3), (0.7, 0.2)))
    assert float(generalised_jsd(STUDENT, TEACHER, beta=1e-6)) / 1e-6 == pytest.approx(forward, rel=1e-4)
    assert float(generalised_jsd(STUDENT, TEACHER, beta=1 - 1e-6)) / 1e-6 == pytest.approx(reverse, rel=1e-4)
    assert float(generalised_jsd(STUDENT, TEACHER, beta=0.0)) == pytest.approx(forward)
    assert float(generalised_jsd(STUDENT, TEACHER, beta=1.0)) == pytest.approx(reverse)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_it_is_bounded_by_the_entropy_of_the_share(beta):
    """Reached by distributions that share no token, which leave it finite with a finite gradient; 0 for equal ones."""
    apart = torch.tensor([[0.0, -2e4], [-2e4, 0.0]], requires_grad=True)
    found = generalised_jsd(apart, apart.detach().flip(1), beta=beta)
    bound = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
    assert found.tolist() == pytest.approx([bound, bound], rel=1e-5)
    found.sum().backward()
    assert apart.grad.isfinite().all()
    assert float(generalised_jsd(TEACHER, TEACHER, beta=beta)) == pytest.approx(0.0, abs=1e-12)
    never = torch.tensor([0.0, -math.inf])
    assert generalised_jsd(never, never.flip(0), beta=beta).isfinite()


def test_half_is_symmetric():
    torch.testing.assert_close(generalised_jsd(STUDENT, TEACHER, beta=0.5), generalised_jsd(TEACHER, STUDENT, beta=0.5))


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_its_gradient_in_the_logits(beta):
    logits = torch.tensor([[0.2, -0.4, 0.1, 1.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[1.2, 0.4, -0.1, 0.3]], dtype=torch.float64).log_softmax(-1)
    assert torch.autograd.gradcheck(lambda z: generalised_jsd(z.log_softmax(-1), teacher, beta=beta), logits)


def test_the_sampled_advantage_has_the_gradient_of_the_reverse_kl():
    """E over the student's tokens of A grad log S is -grad KL(S, T); as a loss, k1 has no expected gradient at all."""
    logits = torch.tensor([0.2, -0.4, 0.1], dtype=torch.float64, requires_grad=True)
    logp = logits.log_softmax(-1)
    known = torch.autograd.grad(kl.exact(logp, TEACHER), logits, retain_graph=True)[0]
    share, advantage = logp.detach().exp(), token_advantage(logp, TEACHER)
    found = torch.autograd.grad((share * advantage * logp).sum(), logits, retain_graph=True)[0]
    torch.testing.assert_close(found, -known)
    nothing = torch.autograd.grad((share * (logp - TEACHER)).sum(), logits)[0]
    torch.testing.assert_close(nothing, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_early_tokens_weigh_by_what_is_left():
    """By a sum per token; the first weighs 1 + early, nothing to learn stays nothing, and early = 0 changes no bit."""
    advantage = torch.tensor([[0.3, -1.2, 0.0, 2.5], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    row = advantage[0].tolist()
    total = sum(map(abs, row))
    known = [a * (1 + 0.7 * (1 - sum(map(abs, row[:t])) / total)) for t, a in enumerate(row)]
    found = weighted_early(advantage, early=0.7)
    assert found[0].tolist() == pytest.approx(known, rel=1e-12)
    assert float(found[0, 0]) == pytest.approx(1.7 * 0.3)
    assert found[1].tolist() == [0.0] * 4
    assert torch.equal(weighted_early(advantage, early=0.0), advantage)
