"""Davidson's model: ties as a third outcome of a Bradley-Terry comparison instead of half a win."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evenhand.errors import UserError
from evenhand.stats.arrays import Array, as_vector
from evenhand.stats.ratings import RIDGE, player_indices


@dataclass(frozen=True, slots=True)
class Davidson:
    """Fitted strengths `theta` (logits, mean zero) by player, and `log_nu`: exp(log_nu)/2 is the odds of a tie among equals."""

    theta: dict[Hashable, float]
    log_nu: float

    def probabilities(self, a: Hashable, b: Hashable) -> tuple[float, float, float]:
        """P(a wins), P(tie), P(b wins)."""
        half = (self.theta[a] - self.theta[b]) / 2
        win, tie, loss = _softmax(np.array([[half, self.log_nu, -half]]))[0]
        return float(win), float(tie), float(loss)


def davidson_ratings(first: Sequence[Hashable], second: Sequence[Hashable], outcome: ArrayLike) -> Davidson:
    """Fit P(i wins) : P(tie) : P(j wins) = pi_i : nu sqrt(pi_i pi_j) : pi_j with pi = exp(theta), by Newton's method.

    `outcome` [m] in {0, 0.5, 1} for `first`. The log-likelihood is concave in (theta, log nu); the ridge of `ratings` fixes
    sum theta = 0. Davidson, JASA 65 (1970) 317. UserError without any tie (nu = 0: use Bradley-Terry) or with other outcomes.

    >>> d = davidson_ratings("aaaa", "bbbb", [1, 0, 0.5, 0.5])
    >>> [round(p, 3) for p in d.probabilities("a", "b")]
    [0.25, 0.5, 0.25]
    """
    y = as_vector(outcome, "davidson_ratings")
    if not np.isin(y, (0.0, 0.5, 1.0)).all():
        raise UserError("outcomes must be 0, 0.5 or 1", where="davidson_ratings", fix="soft outcomes: bradley_terry_ratings")
    if not (y == 0.5).any() or (y == 0.5).all():
        raise UserError("needs ties and decisions", where="davidson_ratings", fix="without ties use bradley_terry_ratings")
    names, one, two = player_indices(first, second, len(y))
    m, players = len(y), len(names)
    half_gap = np.zeros((m, players))
    half_gap[np.arange(m), one], half_gap[np.arange(m), two] = 0.5, -0.5
    theta, log_nu = _newton(half_gap, np.stack([y == 1.0, y == 0.5, y == 0.0], axis=1).astype(float))
    return Davidson(dict(zip(names, theta.tolist(), strict=True)), log_nu)


def _newton(half_gap: Array, observed: Array) -> tuple[Array, float]:
    """Maximise the penalised log-likelihood; `observed` [m, 3] one-hot over (win, tie, loss)."""
    m, players = half_gap.shape
    precision = np.append(np.full(players, RIDGE), 0.0)
    b = np.zeros(players + 1)

    def logits(b: Array) -> Array:
        s = half_gap @ b[:-1]
        return np.stack([s, np.full(m, b[-1]), -s], axis=1)

    def objective(b: Array) -> float:
        z = logits(b)
        return float((np.logaddexp.reduce(z, axis=1) - (observed * z).sum(axis=1)).sum() + 0.5 * precision @ b**2)

    for _ in range(200):
        p = _softmax(logits(b))
        excess, spread, tie = p - observed, p[:, 0] - p[:, 2], p[:, 1]
        gradient = np.append(half_gap.T @ (excess[:, 0] - excess[:, 2]), excess[:, 1].sum()) + precision * b
        hessian = np.zeros((players + 1, players + 1))
        hessian[:-1, :-1] = (half_gap * (p[:, 0] + p[:, 2] - spread**2)[:, None]).T @ half_gap
        hessian[:-1, -1] = hessian[-1, :-1] = -half_gap.T @ (spread * tie)
        hessian[-1, -1] = float((tie * (1 - tie)).sum())
        step = np.linalg.solve(hessian + np.diag(precision), gradient)
        if step @ gradient < 1e-16 * m:
            return b[:-1], float(b[-1])
        scale, value = 1.0, objective(b)
        while objective(b - scale * step) > value + 1e-12 * abs(value) and scale > 1e-10:
            scale /= 2
        b = b - scale * step
    raise UserError("the fit does not settle", where="davidson_ratings", why="some player only wins, only loses or only ties")


def _softmax(z: Array) -> Array:
    return np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True))
