"""A binomial mixed model for wins and losses of several seeds: P(win) = sigma(eta + sigma_u u_s + sigma_v v_i), u, v ~ N(0, 1).

On the logit scale a seed that fails pulls as far as one that shines; on the scale of shares, near 0 or 1, it pulls much further,
and the two-way interval of a mean of few such seeds is too narrow. The estimand is the same: the mean win rate over new seeds
and new prompts, p = E sigma(eta + sigma_u u + sigma_v v).

The fit is Bayesian and deterministic: a grid over (sigma_u, sigma_v), prompts integrated by Gauss-Hermite quadrature, and for
each pair Laplace's approximation in (eta, u_1..u_k) (Breslow and Clayton, JASA 88 (1993) 9; Rue et al., J. R. Statist. Soc. B 71
(2009) 319). Priors: sigma_u half-Cauchy of scale 1 logit, sigma_v flat on the grid, half a win and half a loss on eta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import ArrayLike
from scipy.special import expit, log_expit, logit, ndtr, ndtri

from evenhand.errors import UserError
from evenhand.stats.arrays import Array, as_outcomes
from evenhand.stats.intervals import Interval

SEED_SDS = np.array([0.0, 0.15, 0.35, 0.6, 0.9, 1.3, 1.8, 2.5, 3.5, 5.0, 7.5])
PROMPT_SDS = np.array([0.0, 0.7, 1.3, 2.0, 3.0, 4.5])
SCALE = 1.0
"""Of the half-Cauchy prior of a seed's effect, in logits: a seed that moves 50 % to 73 % is no surprise, to 95 % a rare one."""
_NODES, _WEIGHTS = hermegauss(11)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_SPACED = np.linspace(-4.6, 4.6, 185)
"""Normal scores of the probabilities at which the posterior of p is kept."""
_ETA = ndtri((np.arange(25) + 0.5) / 25)


@dataclass(frozen=True, slots=True)
class MixedWinRate:
    """`estimate` (posterior median of p) with `interval(level)`; `seed_sd`, `prompt_sd` posterior means in logits."""

    estimate: float
    seed_sd: float
    prompt_sd: float
    quantiles: tuple[float, ...]

    def interval(self, level: float = 0.95) -> Interval:
        """The equal-tailed interval of the mean win rate over seeds and prompts."""
        low, high = np.interp(ndtri([(1 - level) / 2, (1 + level) / 2]), _SPACED, self.quantiles)
        return float(low), float(high)


def mixed_win_rate(outcomes: ArrayLike) -> MixedWinRate:
    """The model's win rate for outcomes [seeds, prompts] in [0, 1], two seeds or more; ties and soft outcomes as part wins.

    Approximate where a seed has hardly a loss (or win) and says so nowhere: then the prior speaks. See docs/statistics.md.

    >>> fit = mixed_win_rate([[1, 1, 1, 0, 1, 1, 0, 1]] * 2 + [[0, 1, 0, 0, 1, 0, 0, 0]])
    >>> 0.4 < fit.estimate < 0.7, fit.seed_sd > 0.5
    (True, True)
    """
    y = as_outcomes(outcomes, "mixed_win_rate")
    if len(y) < 2:
        raise UserError("one seed", where="mixed_win_rate", why="it tells nothing about others", fix="use `win_rate`")
    patterns, counts = np.unique(y.T, axis=0, return_counts=True)
    quantiles, seed, prompt = fit_many(patterns, counts[None].astype(float))
    middle = float(np.interp(0.0, _SPACED, quantiles[0]))
    return MixedWinRate(middle, float(seed[0]), float(prompt[0]), tuple(quantiles[0].tolist()))


def fit_many(patterns: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Posteriors of D studies: quantiles [D, 185] of p, and mean seed and prompt sd [D].

    A study is how often (`counts` [D, P]) each column of outcomes over its k seeds (`patterns` [P, k]) occurs among its prompts.
    """
    grid = [(u, v) for v in PROMPT_SDS for u in SEED_SDS]
    fits = [_laplace(patterns, counts, u, v) for u, v in grid]
    prior = np.log(np.gradient(SEED_SDS) / (1 + (SEED_SDS / SCALE) ** 2))
    spacing = np.log(np.gradient(PROMPT_SDS))
    evidence = np.stack([f[2] for f in fits], axis=1) + np.tile(prior, len(PROMPT_SDS)) + np.repeat(spacing, len(SEED_SDS))
    weight = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    eta = np.stack([f[0][:, None] + f[1][:, None] * _ETA for f in fits], axis=1)
    total = np.array([np.hypot(u, v) for u, v in grid])[:, None]
    p = sum(w * expit(eta + total * x) for x, w in zip(_NODES, _WEIGHTS, strict=True))
    seed, prompt = (weight @ np.array([pair[side] for pair in grid]) for side in (0, 1))
    return _quantiles(np.asarray(p), weight), seed, prompt


def _quantiles(p: Array, weight: Array) -> Array:
    """[D, 185]: of D mixtures of values p [D, G, H], each of G rows with `weight` [D, G] spread evenly over its H values."""
    flat, each = p.reshape(len(p), -1), np.repeat(weight / p.shape[2], p.shape[2], axis=1)
    order = np.argsort(flat, axis=1)
    values, mass = np.take_along_axis(flat, order, 1), np.take_along_axis(each, order, 1)
    below = np.cumsum(mass, axis=1) - mass / 2
    return np.stack([np.interp(ndtr(_SPACED), b, v) for b, v in zip(below, values, strict=True)])


def _laplace(patterns: Array, counts: Array, seed_sd: float, prompt_sd: float) -> tuple[Array, Array, Array]:
    """(mode of eta [D], its sd [D], log evidence [D]) given both sds; unknowns t = (eta, u_1..u_k), a_s = eta + seed_sd u_s."""
    studies, k = len(counts), patterns.shape[1]
    wins, rows = counts @ patterns, counts.sum(axis=1)
    pull = np.hypot(1.0, 0.59 * prompt_sd)  # the prompts' spread draws a mean share towards one half by about this
    t = np.zeros((studies, k + 1))
    t[:, 0] = logit((wins.mean(axis=1) + 0.5) / (rows + 1)) * pull
    to_a = np.concatenate([np.ones((k, 1)), seed_sd * np.eye(k)], axis=1)
    value, gradient, hessian = _objective(patterns, counts, wins, t, to_a, prompt_sd)
    for _ in range(60):
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        step *= np.minimum(1.0, 3.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))
        gain = (step * gradient).sum(axis=1)
        if gain.max() < 1e-9:
            break
        scale = np.ones(studies)
        for _ in range(20):
            trial = _objective(patterns, counts, wins, t + scale[:, None] * step, to_a, prompt_sd)
            worse = trial[0] < value - 1e-9
            if not worse.any():
                break
            scale = np.where(worse, scale / 2, scale)
        t = t + scale[:, None] * step
        value, gradient, hessian = trial
    covariance = np.linalg.inv(hessian)
    return t[:, 0], np.sqrt(covariance[:, 0, 0]), value - 0.5 * np.linalg.slogdet(hessian)[1]


def _objective(
    patterns: Array, counts: Array, wins: Array, t: Array, to_a: Array, prompt_sd: float
) -> tuple[Array, Array, Array]:
    """Log posterior [D], its gradient [D, k + 1], and a positive definite negative Hessian [D, k + 1, k + 1] at t."""
    a = t @ to_a.T
    x = a[:, None, :] + prompt_sd * _NODES[None, :, None]
    p = expit(x)
    joint = x @ patterns.T + log_expit(-x).sum(axis=-1)[..., None] + np.log(_WEIGHTS)[None, :, None]
    top = joint.max(axis=1, keepdims=True)
    share = np.exp(joint - top)
    mass = share.sum(axis=1, keepdims=True)
    share /= mass
    at_node = (share * counts[:, None, :]).sum(axis=2)
    expected = (at_node[..., None] * p).sum(axis=1)
    by_pattern = np.swapaxes(share, 1, 2) @ p
    known = (at_node[..., None] * p * (1 - p)).sum(axis=1)
    missing = np.swapaxes(p * at_node[..., None], 1, 2) @ p - np.swapaxes(by_pattern * counts[..., None], 1, 2) @ by_pattern
    curve = known[:, :, None] * np.eye(a.shape[1]) - missing
    values, vectors = np.linalg.eigh(curve)  # far from the mode the exact curvature may bend the other way
    curve = (vectors * np.maximum(values, 1e-3 * values.max(axis=1, keepdims=True))[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    eta, centre = t[:, 0], expit(t[:, 0])
    value = (counts * (top + np.log(mass))[:, 0, :]).sum(axis=1) - 0.5 * (t[:, 1:] ** 2).sum(axis=1)
    value += 0.5 * (log_expit(eta) + log_expit(-eta))
    gradient = (wins - expected) @ to_a
    gradient[:, 1:] -= t[:, 1:]
    gradient[:, 0] += 0.5 * (1 - 2 * centre)
    hessian = np.einsum("si,dst,tj->dij", to_a, curve, to_a)
    hessian[:, range(1, t.shape[1]), range(1, t.shape[1])] += 1.0
    hessian[:, 0, 0] += centre * (1 - centre)
    return value, gradient, hessian
