"""Losses over all answers of a prompt: by hand, as their pairwise limits, and far out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import grad, gradcheck

from evenhand.core import k_answers as k
from evenhand.core import pair_sides, preference

OWNER = torch.tensor([0, 0, 0, 1, 1])
U = torch.tensor([0.5, -1.0, 2.0, 0.3, 0.1], dtype=torch.float64)
REWARD = torch.tensor([1.0, 0.0, 0.5, 2.0, 3.0], dtype=torch.float64)


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def by_group(values):
    return [values[:3].tolist(), values[3:].tolist()]


def test_infonca_and_nca_by_hand():
    infonca, nca = [], []
    for u, r in zip(by_group(U), by_group(REWARD), strict=True):
        w, q = softmax([v / 0.4 for v in r]), softmax([0.3 * v for v in u])
        s = [1 / (1 + math.exp(-0.3 * v)) for v in u]
        infonca += [-wk * math.log(qk) for wk, qk in zip(w, q, strict=True)]
        nca += [-wk * math.log(sk) - math.log(1 - sk) / len(u) for wk, sk in zip(w, s, strict=True)]
    found = [f(U, REWARD, OWNER, beta=0.3, alpha=0.4) for f in (k.infonca, k.nca)]
    torch.testing.assert_close(found[0], torch.tensor(infonca, dtype=torch.float64))
    torch.testing.assert_close(found[1], torch.tensor(nca, dtype=torch.float64))


def test_a_hard_label_of_two_answers_is_the_pair_loss():
    a, b = torch.tensor([0.7]), torch.tensor([-0.4])
    zero, owner = torch.zeros(1), torch.tensor([0, 0])
    for group, pair in ((k.infonca, preference.dpo), (k.nca, pair_sides.nca)):
        found = group(torch.cat([a, b]), torch.tensor([1.0, 0.0]), owner, beta=0.3, alpha=1e-3).sum()
        torch.testing.assert_close(found, pair(a, b, zero, zero, beta=0.3)[0])


def test_qrpo_by_hand():
    """Quantiles 1, 1/3, 2/3 of three answers, 1/2 and 1 of two; Z = beta (e^(1/beta) - 1)."""
    beta = 0.5
    level = beta * math.log(beta * (math.exp(1 / beta) - 1))
    quantile, size = [1, 1 / 3, 2 / 3, 1 / 2, 1], [3, 3, 3, 2, 2]
    known = [(q - level - beta * float(u)) ** 2 / n for q, u, n in zip(quantile, U, size, strict=True)]
    torch.testing.assert_close(k.qrpo(U, REWARD, OWNER, beta=beta), torch.tensor(known, dtype=torch.float64))


@pytest.mark.parametrize("beta", [1e-4, 0.01, 0.1, 1.0, 10.0])
def test_the_partition_of_a_uniform_reward(beta):
    """Against the integral of e^(q / beta) over [0, 1], its largest term taken out."""
    nodes = torch.linspace(0, 1, 2_000_001, dtype=torch.float64)
    integral = torch.trapezoid(torch.exp((nodes - 1) / beta), nodes)
    assert k.log_partition(beta) == pytest.approx(1 + beta * math.log(float(integral)), rel=1e-4)


def test_reward_regression_is_solved_by_the_tilted_reference():
    ref, reward, beta = torch.tensor([0.2, 0.5, 0.3]).log(), torch.tensor([1.0, 0.0, -1.0]), 0.7
    value = beta * torch.logsumexp(ref + reward / beta, 0)
    u = (ref + reward / beta).log_softmax(0) - ref
    torch.testing.assert_close(k.reward_regression(u, reward - value, beta=beta), torch.zeros(3), atol=1e-10, rtol=0)


@pytest.mark.parametrize("loss", [
    lambda u: k.infonca(u, REWARD, OWNER, beta=0.3, alpha=0.4), lambda u: k.nca(u, REWARD, OWNER, beta=0.3, alpha=0.4),
    lambda u: k.qrpo(u, REWARD, OWNER, beta=0.3),
])  # fmt: skip
def test_slopes(loss):
    assert gradcheck(loss, U.clone().requires_grad_())
    far = torch.tensor([1e4, -1e4, 0.0, -1e4, 1e4], requires_grad=True)
    value = loss(far)
    assert value.isfinite().all()
    assert grad(value.sum(), far)[0].isfinite().all()
