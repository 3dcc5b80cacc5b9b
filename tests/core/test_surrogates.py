"""Surrogates and sampler corrections: literals, slopes at ratio 1, what they reduce to, and log-ratios of any size."""

from __future__ import annotations

import math

import pytest
import torch

from evenhand.core import corrections, policy, surrogates

D64 = torch.float64
MASK = torch.tensor([[True, True, True], [True, True, False]])
NONE = torch.zeros(2, 3, dtype=torch.bool)
VESPO = {"k": 2.0, "lam": 3.0, "k_negative": 3.0, "lam_negative": 2.0}
FORMS = {
    "gmpo": lambda new, old, a, m: surrogates.gmpo(new, old, a, m, low=0.4, high=0.4),
    "sapo": lambda new, old, a, m: surrogates.sapo(new, old, a, tau=1.0, tau_negative=1.05),
    "vespo": lambda new, old, a, m: surrogates.vespo(new, old, a, m, **VESPO),
    "dppo": lambda new, old, a, m: surrogates.dppo(new, old, a, low=0.2, high=0.2, cap=20.0),
    "dppo_kl": lambda new, old, a, m: surrogates.dppo_kl(new, old, a, low=0.05, high=0.05, cap=20.0),
    "clip_cov": lambda new, old, a, m: surrogates.clip_cov(new, old, a, torch.zeros_like(m), low=0.2, high=0.2),
    "kl_cov": lambda new, old, a, m: surrogates.kl_cov(new, old, a, torch.ones_like(m), penalty=1.0),
    "luspo": lambda new, old, a, m: policy.gspo(new, old, a, m, low=2e-3, high=2.5e-3) * m.sum(-1, keepdim=True),
}  # fmt: skip


def row(*values):
    return torch.tensor([values], dtype=D64)


def slope(name, new, old, advantage, mask):
    leaf = new.clone().requires_grad_()
    value = torch.where(mask, FORMS[name](leaf, old, advantage, mask), 0.0)
    (value / mask.sum(-1, keepdim=True)).sum().backward()
    return leaf.grad


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("advantage", [(0.8, -1.2), (-0.3, 2.0)])
def test_at_ratio_one_the_gradient_is_that_of_reinforce(name, advantage):
    """Under the mean of sequence means: -A / n at each of n tokens; LUSPO n times that."""
    old = torch.tensor([[-1.0, -0.5, -2.0], [-0.7, -3.0, 0.0]], dtype=D64)
    credit = torch.tensor(advantage, dtype=D64)[:, None]
    n = torch.tensor([[3.0], [2.0]], dtype=D64)
    known = torch.where(MASK, -credit / (1.0 if name == "luspo" else n), 0.0)
    torch.testing.assert_close(slope(name, old, old, credit, MASK), known, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("away", [-1e4, -50.0, 50.0, 1e4])
@pytest.mark.parametrize("good", [1.0, -1.0])
def test_finite_in_float32_however_far_the_policy_has_moved(name, away, good):
    old = torch.full((2, 3), -0.5)
    new = (old + torch.tensor([away, 0.0, away])).requires_grad_()
    value = torch.where(MASK, FORMS[name](new, old, torch.full((2, 1), good), MASK), 0.0)
    value.sum().backward()
    assert value.isfinite().all()
    assert new.grad.isfinite().all()
    assert (new.grad[~MASK] == 0).all()


def test_gmpo_drops_the_clipped_token_and_keeps_the_others():
    """A > 0: exp((0.4 + 0.1) / 2); the token at 1.0 is held at 0.4 and loses its gradient. A < 0: exp((1.0 + 0.1) / 2)."""
    old, new, mask = row(0.0, 0.0), row(1.0, 0.1), torch.ones(1, 2, dtype=torch.bool)
    for credit, log in ((1.0, 0.25), (-1.0, 0.55)):
        found = FORMS["gmpo"](new, old, row(credit), mask)
        torch.testing.assert_close(found, row(-credit * math.exp(log)).expand(1, 2))
    known = row(0.0, -math.exp(0.25) / 2)
    torch.testing.assert_close(slope("gmpo", new, old, row(1.0), mask), known)


def test_sapo_is_two_over_tau_and_a_sigmoid():
    """rho = 2: -4 sigmoid(1) for A = 1; +4/1.05 sigmoid(1.05) for A = -1."""
    old, new, mask = row(0.0), row(math.log(2)), torch.ones(1, 1, dtype=torch.bool)
    assert float(FORMS["sapo"](old, old, row(1.0), mask)) == pytest.approx(-2.0)
    assert float(FORMS["sapo"](new, old, row(1.0), mask)) == pytest.approx(-4 / (1 + math.exp(-1)))
    assert float(FORMS["sapo"](new, old, row(-1.0), mask)) == pytest.approx(4 / 1.05 / (1 + math.exp(-1.05)))


def test_vespo_weighs_an_answer_most_at_k_over_lam():
    """W = 2/3: (2/3)^2 e = 1.2081; for bad answers W = 3/2: 1.5^3 / e = 1.2416; two tokens share the ratio."""
    mask = torch.ones(1, 2, dtype=torch.bool)
    for credit, ratio, weight in ((1.0, 2 / 3, 1.208125), (-1.0, 1.5, 1.241594)):
        new = row(math.log(ratio) - 0.5, 0.5)
        assert slope("vespo", new, row(0.0, 0.0), row(credit), mask) * -2 * credit == pytest.approx(
            row(weight, weight).numpy(), rel=1e-5
        )
        beside = [slope("vespo", new + row(d, 0.0), row(0.0, 0.0), row(credit), mask).abs().max() for d in (-0.1, 0.1)]
        assert max(beside) * 2 < weight


def test_dppo_cuts_probabilities_where_ppo_cuts_ratios():
    """A token of 1e-4 may become ten times likelier; one of 0.5 may not become 0.75."""
    old, new = row(1e-4, 0.5, 0.5).log(), row(1e-3, 0.75, 0.69).log()
    mask = torch.ones(1, 3, dtype=torch.bool)
    torch.testing.assert_close(3 * slope("dppo", new, old, row(1.0), mask), row(-10.0, 0.0, -1.38))
    assert (slope("dppo", new, old, row(-1.0), mask) != 0).all(), "a move against the advantage is not cut"
    clipped = new.clone().requires_grad_()
    policy.clipped(clipped, old, row(1.0), low=0.2, high=0.2).sum().backward()
    assert (clipped.grad == 0).all()


def test_dppo_by_kl_is_the_divergence_of_a_token_against_all_others():
    """q = 0.5, p = 0.75: 0.5 ln(2/3) + 0.5 ln 2 = 0.1438 nats; p = 0.6: 0.0204."""
    old, new = row(0.5, 0.5).log(), row(0.75, 0.6).log()
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert ((slope("dppo_kl", new, old, row(1.0), mask) != 0) == torch.tensor([[False, True]])).all()
    assert (slope("dppo_kl", new, old, row(-1.0), mask) != 0).all()
    wide = surrogates.dppo_kl(new, old, row(1.0), low=0.143, high=0.144, cap=20.0)
    assert (wide != 0).all()


def test_kl_cov_charges_the_chosen_alone_and_clip_cov_frees_them():
    old, new, chosen = row(0.0, 0.0), row(0.5, 0.5), torch.tensor([[True, False]])
    e = math.exp(0.5)
    torch.testing.assert_close(surrogates.kl_cov(new, old, row(1.0), chosen, penalty=2.0), row(-e + 1.0, -e))
    torch.testing.assert_close(surrogates.clip_cov(new, old, row(1.0), chosen, low=0.2, high=0.2), row(0.0, -1.2))


def test_two_sided_clip_is_the_dual_clip():
    """INTELLECT-2 caps the ratio itself at 4 before the minimum: one value and one gradient with PPO's dual clip at 4."""
    old, credit = torch.zeros(6, 1, dtype=D64), torch.tensor([1.0, -1.0] * 3, dtype=D64)[:, None]
    log = torch.tensor([0.3, 0.3, 9.0, 9.0, -2.0, -2.0], dtype=D64)[:, None]
    forms = [
        lambda new: policy.dual_clipped(new, old, credit, low=0.2, high=0.2, cap=4.0),
        lambda new: -torch.minimum((new - old).exp().clamp(max=4.0) * credit, (new - old).exp().clamp(0.8, 1.2) * credit),
    ]
    leaves = [log.clone().requires_grad_() for _ in forms]
    values = [form(leaf) for form, leaf in zip(forms, leaves, strict=True)]
    torch.testing.assert_close(*values)
    for value in values:
        value.sum().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


RATIOS = row(0.5, 2.0, 4.0).log()
BOUNDS = {"low": 0.6, "high": 3.0}
WEIGHTS = {
    "truncate": [0.5, 2.0, 3.0], "mask_tokens": [0.0, 2.0, 0.0], "truncate_sequence": [3.0], "mask_sequences": [0.0],
    "mask_geometric": [0.5, 2.0, 4.0],
}  # fmt: skip
"""Token ratios 1/2, 2, 4: product 4, geometric mean 4^(1/3) = 1.587."""


@pytest.mark.parametrize("name", WEIGHTS)
def test_corrections_by_hand(name):
    mask = torch.ones(1, 3, dtype=torch.bool)
    correct = corrections.CORRECTIONS[name]
    torch.testing.assert_close(correct(RATIOS, 0 * RATIOS, mask, **BOUNDS), row(*WEIGHTS[name]))
    torch.testing.assert_close(correct(0 * RATIOS, 0 * RATIOS, mask, **BOUNDS), torch.ones(1, len(WEIGHTS[name]), dtype=D64))
    far = correct(torch.tensor([[-1e4, 1e4, 0.0]]), torch.zeros(1, 3), mask, low=0.0, high=1e9)
    assert far.isfinite().all()


def test_the_geometric_mask_leaves_whole_answers_out():
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert (corrections.mask_geometric(RATIOS, 0 * RATIOS, mask, low=0.99, high=1.01) == 0).all()
    assert corrections.mask_sequences(RATIOS, 0 * RATIOS, mask, low=0.0, high=4.1).tolist() == [[pytest.approx(4.0)]]


def test_every_correction_is_known_to_be_of_tokens_or_of_sequences():
    mask = torch.ones(1, 3, dtype=torch.bool)
    for name, correct in corrections.CORRECTIONS.items():
        assert (correct(RATIOS, 0 * RATIOS, mask, **BOUNDS).shape[-1] == 1) == (name in corrections.PER_SEQUENCE)


def test_largest_takes_at_least_one():
    values = torch.tensor([0.0, 3.0, 1.0])
    assert surrogates.largest(values, 1e-9).tolist() == [False, True, False]
    assert surrogates.largest(values, 1.0).all()
    assert surrogates.largest(values[:0], 0.5).tolist() == []
