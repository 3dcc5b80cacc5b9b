"""Prompt difficulty: the eliminated Newton step against a plain optimiser, and recovery of known difficulties."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from evenhand.errors import UserError
from evenhand.stats.difficulty import fit_difficulty, prompt_difficulty
from evenhand.stats.length import length_controlled


def test_joint_fit_is_the_optimisers():
    draw = np.random.default_rng(0)
    y, x, w = draw.random((4, 12)), draw.normal(size=(4, 12)), draw.random((4, 12)) + 0.2

    def loss(v):
        s = x * v[:4, None] + v[4:8, None] + v[8:]
        return float((w * (np.logaddexp(0, s) - y * s)).sum() + 0.5e-3 * v[:8] @ v[:8] + 0.35 * v[8:] @ v[8:])

    best = minimize(loss, np.zeros(20), tol=1e-12).x
    beta, d = fit_difficulty(y, x, w, 0.7)
    assert beta[:, 0] == pytest.approx(best[:4], abs=1e-4)
    assert beta[:, 1] == pytest.approx(best[4:8], abs=1e-4)
    assert d == pytest.approx(best[8:], abs=1e-4)


def study(spread, policies=6, n=300):
    draw = np.random.default_rng(1)
    d, gap = draw.normal(0, spread, n), draw.normal(0, 100, (policies, n))
    p = expit(-1.5 * np.tanh(gap / 100) + np.linspace(-1, 1, policies)[:, None] + d)
    return (draw.random((policies, n)) < p).astype(float), 500 - gap, np.full(n, 500.0), d


def test_known_difficulties_are_recovered_and_used():
    y, model, baseline, d = study(spread=1.5)
    found = prompt_difficulty(y[:-1], model[:-1], baseline)
    assert np.corrcoef(found.values, d)[0, 1] > 0.7
    assert found.precision in (0.1, 0.3, 1.0)
    lc = length_controlled(y[-1], model[-1], baseline, found.values, draws=5)
    assert lc.difficulty_effect > 0.5


def test_without_difficulty_the_prior_wins():
    y, model, baseline, _ = study(spread=0.0)
    assert prompt_difficulty(y, model, baseline).precision >= 3.0


def test_three_policies_are_too_few():
    with pytest.raises(UserError, match="at least 4"):
        prompt_difficulty(np.ones((3, 5)), np.ones((3, 5)), np.ones(5))
