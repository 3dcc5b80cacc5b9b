"""Intervals for one mean: Student t, Wilson, clustered errors, and sums of variance parts known from few degrees of freedom."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, ndtri, stdtrit

from evenhand.errors import UserError
from evenhand.stats.arrays import Array, as_vector

Interval = tuple[float, float]

SMALLEST_P = 1e-300
"""p-values are not resolved below this."""
EXCLUDED = 1e-12
"""How far beyond a value an interval ends that excludes it by its p alone."""
SUREST = 1.0 - 1e-12
"""Levels are not resolved closer to 1: beyond it nothing is excluded."""
EQUAL = 1e-12
"""Shares this close to 0 or 1 differ from them by rounding alone."""


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
    return float(np.sqrt(_squared_reach(components, (1 - level) / 2)))


def half_widths(components: Sequence[Component], level: float = 0.95) -> Array:
    """`half_width` of many estimates at once, whose parts hold arrays: simulations."""
    _check_level(level)
    return np.asarray(np.sqrt(_squared_reach(components, (1 - level) / 2)))


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
        parts = (_upper_t(c.df, math.exp(middle) / 2) * math.sqrt(c.variance) for c in components)
        low, high = (middle, high) if math.hypot(*parts) > distance else (low, middle)
    return math.exp((low + high) / 2)


def satterthwaite(components: Sequence[Component]) -> float:
    """Effective degrees of freedom of a sum of variance parts: (sum v)^2 / sum(v^2 / df); the fewest when every part is zero."""
    if any(math.isinf(c.variance) for c in components):
        return float(min(c.df for c in components))
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
    return score_interval(share, float(ndtri((1 + level) / 2)) ** 2 / n)


def soft_wilson(outcomes: ArrayLike, level: float = 0.95) -> Interval:
    """Wilson interval of the mean of outcomes in [0, 1], ties and soft judgements included; see `score_part`.

    >>> [round(x, 3) for x in soft_wilson([0.5] * 20)]  # nothing but ties: not known to be exactly one half
    [0.43, 0.57]
    """
    y = as_vector(outcomes, "soft_wilson")
    return score_interval(float(y.mean()), half_width([score_part(y)], level) ** 2)


def score_part(outcomes: Array) -> Component:
    """The variance of the mean of outcomes [n] in [0, 1], in units of w (1 - w): 1 / n_eff, n_eff = w (1 - w) n / var(y).

    With the population variance, so that plain 0/1 outcomes have n_eff = n and the normal quantile, Wilson's interval exactly.
    Ties and soft judgements carry less variance and count for more trials; their variance is estimated, hence Student's
    quantile, and never below that of two more outcomes, a win and a loss. Leading axes give arrays, as in `crossed`.
    """
    n, share = outcomes.shape[-1], outcomes.mean(axis=-1)
    if n == 1:
        return Component(math.inf, 1.0)
    room = share * (1 - share)
    spread = np.maximum(outcomes.var(axis=-1), 0.5 / (n + 2))
    certain = room < EQUAL
    if np.all(certain) or np.isin(outcomes, (0.0, 1.0)).all():
        return Component(1.0 / n, math.inf)
    variance = np.where(certain, 1.0, spread / np.where(certain, 1.0, room)) / n
    return Component(cast(float, variance) if np.ndim(variance) else float(variance), n - 1)


def score_interval(share: float, quotient: float) -> Interval:
    """The Wilson-shaped interval of a share in [0, 1]: all p with (share - p)^2 <= quotient p (1 - p), quotient = t^2 v."""
    low, high = score_limits(np.asarray(share), np.asarray(quotient))
    return float(low), float(high)


def score_limits(share: Array, quotient: Array) -> tuple[Array, Array]:
    """`score_interval` of many shares at once; everything where the quotient is infinite."""
    with np.errstate(invalid="ignore"):
        centre, reach = share + quotient / 2, np.sqrt(quotient * (share * (1 - share) + quotient / 4))
        low, high = (centre - reach) / (1 + quotient), (centre + reach) / (1 + quotient)
    unknown = np.isinf(quotient)
    return np.where(unknown | (share <= 0.0), 0.0, low), np.where(unknown | (share >= 1.0), 1.0, high)


def score_p(share: float, part: Component) -> float:
    """The p-value of a true share of one half that agrees with `score_interval`: it touches at t^2 = 4 (share - 1/2)^2 / v."""
    return two_sided_p(2.0 * share - 1.0, [part])


def sign_p(differences: Array) -> Array:
    """The sign test's exact p of values [..., n] along the last axis, where all that are not 0 have one size; else 0.

    A mean of such values is 0 just when both signs are as likely, so this test of a mean is exact, which t and score tests of few
    prompts are not: of 50 wins and losses they reject a rate of one half 6.5 % of the time.
    """
    size = np.abs(differences)
    largest = size.max(axis=-1, keepdims=True)
    alike = ((size == 0.0) | (size == largest)).all(axis=-1)
    return np.asarray(np.where(alike, binomial_ps((differences > 0).sum(axis=-1), (differences < 0).sum(axis=-1)), 0.0))


def binomial_ps(positive: Array, negative: Array) -> Array:
    """Two-sided exact p of equally likely signs, min(1, 2 P(Bin(n, 1/2) >= max)); 1 without any."""
    n, fewest = np.asarray(positive + negative, dtype=np.int64), np.minimum(positive, negative).astype(float)
    return np.asarray(np.where(n > 0, np.minimum(1.0, 2.0 * bdtr(fewest, np.maximum(n, 1), 0.5)), 1.0))


def binomial_p(positive: int, negative: int) -> float:
    """`binomial_ps` of one pair of counts."""
    return float(binomial_ps(np.asarray(positive), np.asarray(negative)))


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


def _squared_reach(components: Sequence[Component], tail: float) -> float:
    return sum(_upper_t(c.df, tail) ** 2 * c.variance for c in components)


def _upper_t(df: float, tail: float) -> float:
    return float(-ndtri(tail)) if math.isinf(df) else float(-stdtrit(df, tail))


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise UserError(f"confidence level {level} is not between 0 and 1", where="level", fix="use e.g. 0.95")
