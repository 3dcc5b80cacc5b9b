"""Each cell of the table in `core.kl`, by enumeration of a categorical distribution in float64."""

import math

import pytest
import torch
from torch.autograd import grad

from evenhand.core import kl
from evenhand.core.policy import ratio

LOGITS = torch.tensor([0.3, -1.1, 0.8, 0.05], dtype=torch.float64)
REF = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
OLD = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
ESTIMATORS = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}


def policy():
    logits = LOGITS.clone().requires_grad_()
    return logits, logits.log_softmax(-1)


def divergence_gradient(forward):
    logits, logp = policy()
    p, q = (REF, logp) if forward else (logp, REF)
    return grad((p.exp() * (p - q)).sum(), logits)[0]


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(name):
    _, logp = policy()
    expected = sum(math.exp(a) * (a - b) for a, b in zip(logp.tolist(), REF.tolist(), strict=True))
    assert (logp.exp() * ESTIMATORS[name](logp, REF)).sum().item() == pytest.approx(expected, abs=1e-14)


def test_k2_is_biased():
    _, logp = policy()
    exact = kl.exact(logp, REF)
    assert abs((logp.exp() * kl.k2(logp, REF)).sum() - exact) > 1e-3


def in_loss(estimator):
    """On-policy mean gradient of the estimator: samples carry no gradient, their log-probs do."""
    logits, logp = policy()
    return grad((logp.detach().exp() * estimator(logp, REF)).sum(), logits)[0]


def in_reward(estimator):
    """Mean gradient of reward(x) = estimator, detached, through the score function."""
    logits, logp = policy()
    return grad((logp.detach().exp() * estimator(logp, REF).detach() * logp).sum(), logits)[0]


def test_gradients_in_the_loss():
    torch.testing.assert_close(in_loss(kl.k1), torch.zeros(4, dtype=torch.float64), atol=1e-15, rtol=0)
    torch.testing.assert_close(in_loss(kl.k2), divergence_gradient(forward=False))
    torch.testing.assert_close(in_loss(kl.k3), divergence_gradient(forward=True))
    assert (in_loss(kl.k3) - divergence_gradient(forward=False)).abs().max() > 1e-2


def test_gradients_in_the_reward():
    torch.testing.assert_close(in_reward(kl.k1), divergence_gradient(forward=False))
    assert (in_reward(kl.k2) - divergence_gradient(forward=False)).abs().max() > 1e-2
    assert (in_reward(kl.k3) - divergence_gradient(forward=False)).abs().max() > 1e-2


def test_off_policy_the_ratio_times_k3_has_the_exact_gradient():
    logits, logp = policy()
    loss = (OLD.exp() * ratio(logp, OLD) * kl.k3(logp, REF)).sum()
    torch.testing.assert_close(grad(loss, logits)[0], divergence_gradient(forward=False))


def test_k3_is_non_negative_and_zero_only_at_equality():
    d = torch.arange(-50, 51, dtype=torch.float64) / 10
    value = kl.k3(d, torch.zeros_like(d))
    assert value[50] == 0
    assert (torch.cat([value[:50], value[51:]]) > 0).all()


def test_k3_gradient_in_fp32_is_one_minus_the_inverse_ratio():
    logp = torch.tensor([-19.0, -1.0, -1e-3, 0.5, 30.0], requires_grad=True)
    (gradient,) = grad(kl.k3(logp, torch.zeros(5)).sum(), logp)
    expected = torch.tensor([1 - math.exp(-d) for d in (-19.0, -1.0, -1e-3, 0.5, 30.0)])
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_extreme_differences_stay_finite_and_keep_the_sign_of_the_gradient(name):
    logp = torch.tensor([-1e4, -1e3, -25.0, 0.0, -1e-7], requires_grad=True)
    ref = torch.tensor([0.0, 0.0, 0.0, -1e4, 0.0])
    value = ESTIMATORS[name](logp, ref)
    (gradient,) = grad(value.sum(), logp)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    if name != "k1":
        assert (gradient[:3] < 0).all()  # too unlikely: descending must raise logp
        assert gradient[3] > 0


def test_k3_is_continuous_where_its_tangent_begins():
    d = torch.tensor([20 - 1e-9, 20 + 1e-9], dtype=torch.float64, requires_grad=True)
    value = kl.k3(-d, torch.zeros_like(d))
    (slope,) = grad(value.sum(), d)
    assert value[1].item() == pytest.approx(value[0].item(), rel=1e-8)
    assert slope[1].item() == pytest.approx(slope[0].item(), rel=1e-8)


def test_exact_handles_impossible_tokens():
    p = torch.tensor([0.0, 1.0]).log().requires_grad_()
    q = torch.tensor([0.5, 0.5]).log()
    value = kl.exact(p, q)
    value.backward()
    assert value.item() == pytest.approx(math.log(2))
    assert not p.grad.isnan().any()
    assert kl.exact(q, torch.tensor([0.0, 1.0]).log()) == math.inf
    assert kl.exact(q.expand(2, 3, 2), q).shape == (2, 3)
