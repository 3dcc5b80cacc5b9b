"""Small logistic fits, many at once: ridge Newton for reweighted copies of one data set, and the l1 path by proximal Newton."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from evenhand.errors import UserError
from evenhand.stats.arrays import Array

SURE = 1.0
"""A Newton step that moves no row's logit further need not be tried: curvatures change by a factor of at most e^r over a move of
r, so that a step falls by its decrement times 1 - (e^r - r - 1) / r^2 or more, 0.28 of it at 1 (Bach, Electron. J. Statist. 4
(2010) 384)."""


def ridge_logistic(
    x: Array, y: Array, weights: Array, *, precision: Array, mean: Array | None = None, start: Array | None = None
) -> Array:
    """Coefficients [B, p] of B logistic fits that differ only in their row weights [B, n].

    Minimises sum_i w_i CE(y_i, sigma(x_i b)) + 1/2 sum_j precision_j (b_j - mean_j)^2 by Newton's method with halved steps.
    `x` [n, p], `y` [n] in [0, 1] (soft targets allowed), `precision` [p] >= 0. `start` [p] saves steps near the optimum,
    which does not depend on it. Deterministic; UserError if it does not settle.
    """
    rows, columns = x.shape
    centre = np.zeros(columns) if mean is None else mean
    products, furthest = (x[:, :, None] * x[:, None, :]).reshape(rows, columns * columns), np.abs(x).max(axis=0)
    b = np.tile(centre if start is None else start, (len(weights), 1))
    for _ in range(200):
        p = expit(b @ x.T)
        gradient = (weights * (p - y)) @ x + precision * (b - centre)
        curve = weights * p
        curve *= 1 - p
        hessian = (curve @ products).reshape(-1, columns, columns) + np.diag(precision)
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        decrement = (step * gradient).sum(axis=1)
        if decrement.max() < 1e-20 * rows:
            return b
        if (np.abs(step) @ furthest).max() <= SURE or np.abs(step @ x.T).max() <= SURE:
            b = b - step
            continue
        value, scale = _objective(b, x, y, weights, precision, centre), np.ones(len(b))
        for _ in range(40):
            trial = b - scale[:, None] * step
            new = _objective(trial, x, y, weights, precision, centre)
            worse = new > value - 1e-4 * scale * decrement + 1e-12 * np.abs(value)
            if not worse.any():
                break
            scale = np.where(worse, scale / 2, scale)
        b = trial
    why = "the outcomes are separable by the features, or a feature is constant zero"
    raise UserError("the logistic fit does not settle", where="ridge_logistic", why=why, fix="raise the ridge precision")


def l1_logistic(x: Array, y: Array, weights: Array, strength: float, start: Array | None = None) -> Array:
    """Coefficients [p] minimising ||b||_1 + strength sum_i w_i CE(y_i, sigma(x_i b)): coordinate Newton with line search.

    The objective of scikit-learn's l1 LogisticRegression with C = `strength` and no intercept.
    """
    b = np.zeros(x.shape[1]) if start is None else start.copy()
    for _ in range(500):
        before = b.copy()
        for j in range(len(b)):
            b[j] += _coordinate_step(x, y, weights, strength, b, j)
        if np.abs(b - before).max() < 1e-10 * max(1.0, np.abs(b).max()):
            return b
    why = "the features are collinear, or tell the outcomes apart"
    raise UserError("the l1 fit does not settle", where="l1_logistic", why=why)


def separated(x: Array, y: Array) -> bool:
    """Whether some direction b has x b >= 0 on all wins and <= 0 on all losses, not all 0: then no logistic fit is finite.

    Outcomes strictly between 0 and 1 count as both, so that x b = 0 on them (Albert and Anderson, Biometrika 71 (1984) 1). By a
    linear program over |b_j| <= 1.
    """
    from scipy.optimize import linprog

    side = np.where(y >= 1.0, 1.0, np.where(y <= 0.0, -1.0, 0.0))
    decided, soft = side != 0.0, side == 0.0
    if not decided.any():
        return False
    margins = side[decided, None] * x[decided]
    equal = {"A_eq": x[soft], "b_eq": np.zeros(int(soft.sum()))} if soft.any() else {}
    found = linprog(-margins.sum(axis=0), A_ub=-margins, b_ub=np.zeros(len(margins)), bounds=[(-1.0, 1.0)] * x.shape[1], **equal)
    return bool(found.status == 0 and -found.fun > 1e-7 * len(margins))


def _coordinate_step(x: Array, y: Array, weights: Array, strength: float, b: Array, j: int) -> float:
    """The change of coordinate j that minimises a quadratic model plus |b_j|, halved until the objective falls."""
    score = x @ b
    p, column = expit(score), x[:, j]
    slope = strength * float((weights * (p - y)) @ column)
    curve = strength * float((weights * p * (1 - p)) @ column**2) + 1e-12
    target = b[j] - slope / curve
    move = float(np.sign(target) * max(abs(target) - 1 / curve, 0.0) - b[j])

    def change(step: float) -> float:
        loss = _cross_entropy(score + step * column, y) - _cross_entropy(score, y)
        return strength * float(weights @ loss) + abs(b[j] + step) - abs(b[j])

    while abs(move) > 1e-14 and change(move) > 0.0:
        move /= 2
    return move


def _objective(b: Array, x: Array, y: Array, weights: Array, precision: Array, centre: Array) -> Array:
    return (weights * _cross_entropy(b @ x.T, y)).sum(axis=1) + 0.5 * ((b - centre) ** 2 @ precision)


def _cross_entropy(score: Array, y: Array) -> Array:
    """-y log sigma(s) - (1 - y) log sigma(-s), stable at any s."""
    return np.logaddexp(0.0, score) - y * score
