"""Intervals for one mean: Student t, Wilson, clustered errors, and sums of variance parts known from few degrees of freedom."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from evenhand.errors import UserError
from evenhand.stats.arrays import as_vector

Interval = tuple[float, float]

SMALLEST_P = 1e-300
"""p-values are not resolved below this."""


@dataclass(frozen=True, slots=True)
class Component:
    """One independent part of an estimate's variance, itself estimated with `df` degrees of freedom."""

    variance: float
    df: float


def half_width(components: Sequence[Component], level: float = 0.95) -> float:
    """Half-width of a confidence interval whose variance is a sum of parts: h^2 = sum_c t^2_{df_c} v_c.

    Each part is stretched by its own Student quantile, so a seed variance known from k - 1 = 2 degrees of freedom is paid
    for in full, while the prompt variance costs little. Coverage is at least `level` whatever the true parts are.
    One part: the usual t interval. Infinite df: the normal interval. Banerjee, Sankhya A 23 (1961) 85-96.

    >>> round(half_width([Component(1.0, math.inf)]), 4)
    1.96
    """
    _check_level(level)
    return math.sqrt(sum(_t(c.df, level) ** 2 * c.variance for c in components))


def two_sided_p(estimate: float, components: Sequence[Component], null: float = 0.0) -> float:
    """The p-value that agrees with `half_width`: 1 - (the level at which the interval just touches `null`).

    >>> round(two_sided_p(1.96, [Component(1.0, math.inf)]), 3)
    0.05
    """
    distance = abs(estimate - null)
    if distance == 0.0:
        return 1.0
    low, high = math.log(SMALLEST_P), 0.0
    for _ in range(100):  # bisection on log p; the half-width falls as p rises
        middle = (low + high) / 2
        tail = math.exp(middle) / 2
        reach = math.sqrt(sum(_upper_t(c.df, tail) ** 2 * c.variance for c in components))
        low, high = (middle, high) if reach > distance else (low, middle)
    return math.exp((low + high) / 2)


def satterthwaite(components: Sequence[Component]) -> float:
    """Effective degrees of freedom of a sum of variance parts: (sum v)^2 / sum(v^2 / df); the fewest when every part is zero."""
    below = sum(c.variance**2 / c.df for c in components)
    return sum(c.variance for c in components) ** 2 / below if below > 0.0 else float(min(c.df for c in components))


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """mean +- t_{n-1} sd / sqrt(n) of independent values [n], n >= 2."""
    x = as_vector(values, "t_interval", at_least=2)
    h = half_width([Component(float(x.var(ddof=1)) / len(x), len(x) - 1)], level)
    return float(x.mean()) - h, float(x.mean()) + h


def wilson(share: float, n: float, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion `share` of `n` trials; never leaves [0, 1], sensible at 0 and 1.

    [p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)] / (1 + z^2/n). Wilson, JASA 22 (1927) 209. `n` may be an effective size.

    >>> [round(x, 4) for x in wilson(0.0, 10)]
    [0.0, 0.2775]
    """
    _check_level(level)
    if not 0.0 <= share <= 1.0 or not n > 0:
        raise UserError(f"share {share} of {n} trials is not a proportion", where="wilson")
    return _wilson(share, float(ndtri((1 + level) / 2)) ** 2 / n)


def soft_wilson(outcomes: ArrayLike, level: float = 0.95) -> Interval:
    """Wilson interval of the mean of outcomes in [0, 1], ties and soft judgements included.

    Uses the effective size n_eff = w (1 - w) / (var(y) / n) with the population variance, so that plain 0/1 outcomes give
    `wilson(w, n)` exactly, and ties, which carry less variance than wins and losses, count for more trials.
    """
    y = as_vector(outcomes, "soft_wilson")
    share, spread = float(y.mean()), float(y.var())
    if spread == 0.0:
        return (share, share) if 0.0 < share < 1.0 else wilson(share, len(y), level)
    return wilson(share, len(y) * share * (1 - share) / spread, level)


def score_interval(share: float, half: float) -> Interval:
    """The Wilson-shaped interval of a proportion whose plain interval would be share +- half (0 < share < 1)."""
    return _wilson(share, half**2 / (share * (1 - share)))


def clustered_se(values: ArrayLike, clusters: Sequence[Hashable]) -> float:
    """Standard error of a mean whose rows come in clusters (topics, documents, several samples of one prompt).

    SE^2 = (1/N^2) G/(G-1) sum_g (sum_{i in g} (y_i - mean))^2. With every row its own cluster it is sd / sqrt(N).

    >>> round(clustered_se([0.0, 1.0, 1.0, 0.0], "abcd"), 4), round(clustered_se([0.0, 0.0, 1.0, 1.0], "aabb"), 4)
    (0.2887, 0.5)
    """
    y = as_vector(values, "clustered_se", at_least=2)
    if len(clusters) != len(y):
        raise UserError(f"{len(y)} values but {len(clusters)} cluster names", where="clustered_se")
    names: dict[Hashable, int] = {}
    index = [names.setdefault(name, len(names)) for name in clusters]
    groups = len(names)
    if groups < 2:
        raise UserError("all rows lie in one cluster", where="clustered_se", why="its spread cannot be estimated")
    sums = np.bincount(index, weights=y - y.mean())
    return float(math.sqrt(groups / (groups - 1) * (sums**2).sum()) / len(y))


def _wilson(share: float, q: float) -> Interval:
    """Wilson bounds for q = z^2 / n."""
    centre, reach = share + q / 2, math.sqrt(q * (share * (1 - share) + q / 4))
    low = (centre - reach) / (1 + q) if share > 0.0 else 0.0
    high = (centre + reach) / (1 + q) if share < 1.0 else 1.0
    return low, high


def _t(df: float, level: float) -> float:
    return _upper_t(df, (1 - level) / 2)


def _upper_t(df: float, tail: float) -> float:
    return float(-ndtri(tail)) if math.isinf(df) else float(-stdtrit(df, tail))


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise UserError(f"confidence level {level} is not between 0 and 1", where="level", fix="use e.g. 0.95")
