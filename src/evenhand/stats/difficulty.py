"""How hard each prompt is to win on, from several policies judged on it: the `difficulty` that length control can use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.stats.arrays import Array, as_outcomes, as_table, same_shape
from evenhand.stats.logistic import SURE

PRECISIONS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Candidate precisions of the prior on a prompt's difficulty."""

WEAK = 1e-3
"""Precision of the prior on the policies' own coefficients."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """`values` [n] in logits, mean near 0 (higher: easier to win), the chosen prior `precision`, held-out `losses` by it."""

    values: tuple[float, ...]
    precision: float
    losses: dict[float, float]


def prompt_difficulty(
    preference: ArrayLike, length_model: ArrayLike, length_baseline: ArrayLike, *, folds: int = 5, seed: int = 0
) -> Difficulty:
    """Per-prompt effects d_i of the joint fit P(policy m wins on i) = sigma(phi_m tanh(z_mi) + theta_m + d_i), d_i ~ N(0, 1/tau).

    `preference` [policies, n] in [0, 1] with at least 4 policies (fewer cannot tell a hard prompt from bad luck), lengths of
    the same shape (`length_baseline` may be [n]); z as in `length`. tau by cross-validation over cells. The values are meant
    as the `difficulty` of `length_controlled`, where a policy under test should not be among the policies that made them.
    """
    y, model = as_outcomes(preference, "prompt_difficulty"), as_table(length_model, "length_model")
    if len(y) < 4:
        raise UserError(f"{len(y)} policies", where="prompt_difficulty", why="prompt effects need at least 4", fix="leave it out")
    baseline = as_table(length_baseline, "length_baseline")
    baseline = np.repeat(baseline, len(y), axis=0) if len(baseline) == 1 else baseline
    same_shape("prompt_difficulty", preference=y, length_model=model, length_baseline=baseline)
    gap = baseline - model
    spread = gap.std(axis=1, ddof=1, keepdims=True)
    x = np.tanh(gap / np.where(spread > 0.0, spread, 1.0))
    fold = rng(seed, "prompt_difficulty", *y.shape).integers(folds, size=y.shape)
    losses = {tau: _held_out_loss(y, x, fold, folds, tau) for tau in PRECISIONS}
    best = min(losses, key=losses.__getitem__)
    _, d = fit_difficulty(y, x, np.ones_like(y), best)
    return Difficulty(tuple(d.tolist()), best, losses)


def fit_difficulty(y: Array, x: Array, weight: Array, precision: float) -> tuple[Array, Array]:
    """Coefficients [policies, 2] (phi, theta) and difficulties [n] at the penalised optimum, by Newton's method.

    The n difficulties are eliminated from each step through their diagonal Hessian (Schur complement).
    """
    policies, n = y.shape
    beta, d = np.zeros((policies, 2)), np.zeros(n)

    def objective(beta: Array, d: Array) -> float:
        s = _logits(x, beta, d)
        return float((weight * (np.logaddexp(0.0, s) - y * s)).sum() + 0.5 * (WEAK * (beta**2).sum() + precision * d @ d))

    for _ in range(100):
        p = expit(_logits(x, beta, d))
        residual, curve = weight * (p - y), weight * p * (1 - p)
        bent = curve * x
        g_beta = np.concatenate([(residual * x).sum(axis=1), residual.sum(axis=1)]) + WEAK * beta.T.ravel()
        g_d = residual.sum(axis=0) + precision * d
        h_d = curve.sum(axis=0) + precision
        phi, both, theta = (np.diag(part.sum(axis=1)) for part in (bent * x, bent, curve))
        cross = np.concatenate([bent, curve])
        schur = np.block([[phi, both], [both, theta]]) + WEAK * np.eye(2 * policies) - (cross / h_d) @ cross.T
        flat = np.linalg.solve(schur, g_beta - cross @ (g_d / h_d))
        step, step_d = flat.reshape(2, policies).T, (g_d - flat @ cross) / h_d
        if flat @ g_beta + step_d @ g_d < 1e-14 * y.size:
            return beta, d
        scale = 1.0
        if np.abs(_logits(x, step, step_d)).max() > SURE:
            value = objective(beta, d)
            while objective(beta - scale * step, d - scale * step_d) > value and scale > 1e-8:
                scale /= 2
        beta, d = beta - scale * step, d - scale * step_d
    raise UserError("the joint fit does not settle", where="fit_difficulty", why="a policy always wins or always loses")


def _logits(x: Array, beta: Array, d: Array) -> Array:
    """[policies, n]: phi_m x_mi + theta_m + d_i."""
    return x * beta[:, :1] + beta[:, 1:] + d


def _held_out_loss(y: Array, x: Array, fold: NDArray[np.integer], folds: int, precision: float) -> float:
    total = 0.0
    for left_out in range(folds):
        test = fold == left_out
        beta, d = fit_difficulty(y, x, (~test).astype(float), precision)
        score = _logits(x, beta, d)
        total += float((np.logaddexp(0.0, score) - y * score)[test].sum())
    return total / y.size
