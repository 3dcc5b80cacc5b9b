"""Bootstrap over prompts with keyed seeds: percentile and BCa intervals, and the crossed seed x prompt bootstrap."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from evenhand.seeding import rng
from evenhand.stats.arrays import Array, as_table, as_vector
from evenhand.stats.intervals import Interval

CHUNK = 500
"""Resamples held in memory at once."""


def percentile_interval(values: ArrayLike, *, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the mean of `values` [n], one per prompt; the same seed and n reuse the same prompts."""
    x = as_vector(values, "percentile_interval", at_least=2)
    tail = (1 - level) / 2
    low, high = np.quantile(resampled_means(x, draws=draws, seed=seed), (tail, 1 - tail))
    return float(low), float(high)


def bca_interval(values: ArrayLike, *, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean of `values` [n]. Efron, JASA 82 (1987) 171.

    z0 = Phi^-1(share of resampled means below the mean, ties half), a = sum u^3 / (6 (sum u^2)^{3/2}) from the jackknife.
    Constant values give an interval without width.
    """
    x = as_vector(values, "bca_interval", at_least=2)
    centred = x - x.mean()
    if not centred.any():
        return float(x.mean()), float(x.mean())
    means = resampled_means(x, draws=draws, seed=seed)
    share = float((means < x.mean()).mean() + 0.5 * (means == x.mean()).mean())
    z0 = float(ndtri(min(max(share, 0.5 / draws), 1 - 0.5 / draws)))
    acceleration = float((centred**3).sum()) / (6.0 * float((centred**2).sum()) ** 1.5)
    tails = []
    for probability in ((1 - level) / 2, (1 + level) / 2):
        z = z0 + float(ndtri(probability))
        tails.append(float(ndtr(z0 + z / (1 - acceleration * z))))
    low, high = np.quantile(means, tails)
    return float(low), float(high)


def crossed_interval(table: ArrayLike, *, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> Interval:
    """Bootstrap of the mean of a [seeds, prompts] table, seeds and prompts resampled independently of each other.

    Resampling k seeds understates their variance by (k - 1)/k, so the seed part of each deviation is stretched by
    sqrt(k/(k - 1)). With few seeds it still knows nothing of Student's tails: prefer the two-way interval when k <= 5.
    """
    y = as_table(table, "crossed_interval")
    k, n = y.shape
    if k == 1:
        return percentile_interval(y[0], level=level, draws=draws, seed=seed)
    draw, mean = rng(seed, "crossed_interval", k, n), y.mean()
    stretch, deviations = math.sqrt(k / (k - 1)), []
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        seeds = draw.multinomial(k, np.full(k, 1 / k), size=size) / k
        prompts = draw.multinomial(n, np.full(n, 1 / n), size=size) / n
        by_seed = seeds @ (y.mean(axis=1) - mean)
        both = ((seeds @ y) * prompts).sum(axis=1) - mean
        deviations.append(both + (stretch - 1) * by_seed)
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(deviations), (tail, 1 - tail))
    return float(mean + low), float(mean + high)


def resampled_means(values: Array, *, draws: int, seed: int) -> Array:
    """Means [draws] of prompts drawn with replacement; depends on the values only through their order."""
    n, draw = len(values), rng(seed, "bootstrap", len(values))
    chunks = (min(CHUNK, draws - start) for start in range(0, draws, CHUNK))
    return np.concatenate([values[draw.integers(n, size=(size, n))].mean(axis=1) for size in chunks])
