"""The two-way analysis of variance of a table [seeds, prompts], and the least variance that a mean can claim.

The model is d[s, i] = Delta + u_s + v_i + e: a seed shifts all its prompts together. From the mean squares
    MS_S = n Var_s(mean over prompts),  MS_P = k Var_i(mean over seeds),  MS_E = the residual mean square
come the two parts of the variance of the mean: seeds MS_S / nk (k - 1 df) and prompts max(MS_P - MS_E, 0) / nk (n - 1 df).
Wins and losses lie on a lattice, so that seeds agree exactly far more often than continuous outcomes would, and a few seeds that
agree leave no seed part at all: `lattice` pays for that.
Everything here also takes tables with leading axes, [..., k, n], and then returns arrays: simulations run the same code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from evenhand.stats.arrays import Array
from evenhand.stats.intervals import Component

MOST_GRADES = 5
"""Outcomes with more values than this are taken for continuous."""


@dataclass(frozen=True, slots=True)
class MeanSquares:
    """MS_S (k - 1 df), MS_P (n - 1 df), MS_E ((k - 1)(n - 1) df) of a table [k, n] without replication; k, n >= 2."""

    seeds: float
    prompts: float
    residual: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations of one paired difference: `seed` of u_s, `prompt` of v_i, `noise` of e. Truncated at 0."""

    seed: float
    prompt: float
    noise: float
    gap: float = 0.0
    """Between neighbouring outcomes, which the interval pays for; see `lattice`."""


def mean_squares(table: Array) -> MeanSquares:
    """The mean squares of a table [k, n], k and n >= 2.

    >>> mean_squares(np.array([[1.0, 0.0], [0.0, 1.0]]))
    MeanSquares(seeds=0.0, prompts=0.0, residual=1.0)
    """
    k, n = table.shape[-2:]
    rows, columns = table.mean(axis=-1), table.mean(axis=-2)
    residual = table - rows[..., :, None] - columns[..., None, :] + table.mean(axis=(-2, -1))[..., None, None]
    return MeanSquares(
        seeds=_plain(n * rows.var(axis=-1, ddof=1)),
        prompts=_plain(k * columns.var(axis=-1, ddof=1)),
        residual=_plain((residual**2).sum(axis=(-2, -1)) / ((k - 1) * (n - 1))),
    )


def spread(table: Array, gap: float = 0.0) -> Spread:
    """The variance parts of one difference: sigma_u^2 = (MS_S - MS_E) / n, sigma_v^2 = (MS_P - MS_E) / k, sigma_e^2 = MS_E.

    One seed: prompts and noise cannot be told apart, and all of it is called noise.
    """
    k, n = table.shape
    if n < 2:
        return Spread(math.inf, math.inf, math.inf)
    if k == 1:
        return Spread(0.0, 0.0, float(table[0].std(ddof=1)), gap)
    ms = mean_squares(table)
    return Spread(
        seed=math.sqrt(max(ms.seeds - ms.residual, 0.0) / n),
        prompt=math.sqrt(max(ms.prompts - ms.residual, 0.0) / k),
        noise=math.sqrt(ms.residual),
        gap=gap,
    )


def variance_components(table: Array, gap: float = 0.0) -> tuple[Component, ...]:
    """The independent parts of the variance of a table's mean: seeds and prompts; prompts alone at k = 1; unknown at n = 1.

    `gap` (see `lattice`): the standard deviation of the seeds' means is raised by gap / (n sqrt(8)), which is what half a step of
    the lattice between two seeds amounts to, a continuity correction. It vanishes with n.
    """
    k, n = table.shape[-2:]
    if n == 1:
        return (Component(math.inf, 1.0),)
    if k == 1:
        return (Component(_plain(table[..., 0, :].var(axis=-1, ddof=1) / n), n - 1),)
    ms = mean_squares(table)
    return (
        Component(seed_variance(ms, k, n, gap), k - 1),
        Component(_plain(np.maximum(ms.prompts - ms.residual, 0.0) / (n * k)), n - 1),
    )


def seed_variance(ms: MeanSquares, k: int, n: int, gap: float) -> float:
    """Of the mean of k seeds, [sqrt(MS_S / n) + gap / (n sqrt 8)]^2 / k."""
    return _plain((np.sqrt(ms.seeds / n) + gap / (n * math.sqrt(8.0))) ** 2 / k)


def lattice(*tables: Array) -> float:
    """The smallest gap between outcomes that take at most five values (win, tie, loss; grades), else 0.

    >>> lattice(np.array([1.0, 0.0, 0.5])), lattice(np.linspace(0, 1, 50))
    (0.5, 0.0)
    """
    values = np.unique(np.round(np.concatenate([t.ravel() for t in tables]), 9))
    return float(np.diff(values).min()) if 2 <= len(values) <= MOST_GRADES else 0.0


def least_variance(by_prompt: Array, reach: float) -> Component:
    """The variance of the mean over prompts [..., n] as if these checkpoints were all: no interval may be narrower than this.

    max(Var(by_prompt) / n, 2 reach^2 / (n + 2)^2): where the prompts hardly vary, the second is what two more prompts, one
    `reach` above and one below, would give (Agresti and Min, Statist. Med. 24 (2005) 729; Bonett and Price, J. Educ. Behav.
    Statist. 37 (2012) 479). One prompt tells nothing of others: infinite.
    """
    n = by_prompt.shape[-1]
    if n == 1:
        return Component(math.inf, 1.0)
    return Component(_plain(np.maximum(by_prompt.var(axis=-1, ddof=1) / n, imagined_variance(n, reach))), n - 1)


def imagined_variance(n: int, reach: float) -> float:
    """2 reach^2 / (n + 2)^2: the variance of a mean of n equal values and two more, `reach` above and below."""
    return 2.0 * reach**2 / (n + 2) ** 2


def _plain(value: object) -> float:
    """A float for one table; the array itself for many (typed as its element, which is how the formulas read)."""
    return cast(float, value) if np.ndim(cast(Array, value)) else float(cast(float, value))
