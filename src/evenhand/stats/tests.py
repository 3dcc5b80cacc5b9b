"""Tests and verdicts: sign, McNemar, permutation, Holm, equivalence, and the rule that allows a headline."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, chdtrc, ndtri

from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.stats.arrays import as_vector
from evenhand.stats.intervals import Interval, binomial_p
from evenhand.stats.twoway import Difference

BETTER, WORSE, INCONCLUSIVE = "better", "worse", "inconclusive"
_LEAST_TAILS = 1e-15
"""Levels are not resolved closer to 1 than this."""


@dataclass(frozen=True, slots=True)
class SignTest:
    """Counts of positive, negative and zero differences, and the two-sided exact p-value without the zeros."""

    positive: int
    negative: int
    zero: int
    p: float


@dataclass(frozen=True, slots=True)
class McNemar:
    """Discordant counts `b` (A right, B wrong) and `c` (reverse), three p-values, and the difference of shares with its CI."""

    b: int
    c: int
    exact: float
    mid_p: float
    large: float
    difference: float
    ci95: Interval


def sign_test(differences: ArrayLike) -> SignTest:
    """Exact two-sided sign test: p = min(1, 2 P(Bin(n+ + n-, 1/2) >= max(n+, n-))). Zeros are dropped and reported.

    >>> sign_test([1, 1, 1, 1, 0]), sign_test([1, -1]).p
    (SignTest(positive=4, negative=0, zero=1, p=0.125), 1.0)
    """
    d = as_vector(differences, "sign_test")
    positive, negative = int((d > 0).sum()), int((d < 0).sum())
    return SignTest(positive, negative, len(d) - positive - negative, binomial_p(positive, negative))


def mcnemar(a: ArrayLike, b: ArrayLike) -> McNemar:
    """McNemar's test for two right/wrong (1/0) judgements of the same items.

    exact: the sign test on the discordant pairs; mid-p = exact - P(X = max); large: (b - c)^2/(b + c) ~ chi^2_1;
    interval of the difference of shares: Delta +- z sqrt((b + c) - (b - c)^2/n)/n, never below that of two discordant pairs, one
    each way. McNemar, Psychometrika 12 (1947) 153.
    """
    x, y = as_vector(a, "mcnemar a"), as_vector(b, "mcnemar b")
    if len(x) != len(y) or not (np.isin(x, (0, 1)).all() and np.isin(y, (0, 1)).all()):
        raise UserError("needs two equally long vectors of 0 and 1", where="mcnemar", fix="soft outcomes: paired_difference")
    n, first, second = len(x), int(((x == 1) & (y == 0)).sum()), int(((x == 0) & (y == 1)).sum())
    discordant, exact = first + second, binomial_p(first, second)
    delta = (first - second) / n
    reach = float(ndtri(0.975)) * math.sqrt(max(discordant - (first - second) ** 2 / n, 2.0)) / n
    return McNemar(
        b=first,
        c=second,
        exact=exact,
        mid_p=_binomial_mid_p(first, second),
        large=float(chdtrc(1, (first - second) ** 2 / discordant)) if discordant else 1.0,
        difference=delta,
        ci95=(delta - reach, delta + reach),
    )


def permutation_test(differences: ArrayLike, *, seed: int = 0, draws: int = 10_000) -> float:
    """Two-sided sign-flip test of a zero mean: p = (1 + #{|mean*| >= |mean|}) / (1 + draws), paired differences [n].

    With at most 2^n <= draws sign patterns all of them are counted, and p is exact.

    >>> permutation_test([1.0, 2.0, 3.0])
    0.25
    """
    d = as_vector(differences, "permutation_test")
    n, observed = len(d), abs(d.sum())
    reach = observed * (1 - 1e-12)  # the same sum in another order of addition must count as equal
    if 2**n <= draws:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(np.mean(np.abs((1.0 - 2.0 * patterns) @ d) >= reach))
    flips, hits = rng(seed, "permutation_test", n), 0
    for start in range(0, draws, 1000):
        signs = flips.integers(0, 2, size=(min(1000, draws - start), n), dtype=np.int8)
        hits += int((np.abs((1.0 - 2.0 * signs) @ d) >= reach).sum())
    return (1 + hits) / (1 + draws)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in the given order; controls the family-wise error rate.

    p~_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)). Holm, Scand. J. Statist. 6 (1979) 65.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = list(p_values)
    if any(not 0.0 <= x <= 1.0 for x in p):
        raise UserError(f"p-values {p} are not all in [0, 1]", where="holm")
    adjusted, running = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted


def holm_by_family(p_values: Sequence[float], families: Sequence[Hashable]) -> list[float]:
    """`holm` within each family of tests, in the given order: what is declared beforehand does not pay for what is searched.

    Reduces to `holm` with one family.

    >>> holm_by_family([0.01, 0.04, 0.03], ["declared", "searched", "declared"])
    [0.02, 0.04, 0.03]
    """
    places: dict[Hashable, list[int]] = {}
    for index, family in enumerate(families):
        places.setdefault(family, []).append(index)
    adjusted = [0.0] * len(p_values)
    for members in places.values():
        for index, p in zip(members, holm([p_values[i] for i in members]), strict=True):
            adjusted[index] = p
    return adjusted


def equivalent(difference: Difference, margin: float) -> bool:
    """Two one-sided tests at 5 %: True when the 90 % two-way interval lies inside (-margin, margin)."""
    if not margin > 0.0:
        raise UserError(f"margin {margin} is not positive", where="equivalent")
    low, high = difference.interval(0.90)
    return -margin < low and high < margin


def equivalence_p(difference: Difference, margin: float) -> float:
    """The larger p-value of the two one-sided tests of |Delta| >= margin; below 0.05 exactly where `equivalent` is True."""
    if not margin > 0.0:
        raise UserError(f"margin {margin} is not positive", where="equivalence_p")
    within = abs(difference.estimate) < margin

    def apart(tails: float) -> bool:
        """Whether the interval that leaves out `tails` in all keeps off both margins, on the estimate's side of them."""
        low, high = difference.interval(1.0 - tails)
        return -margin < low and high < margin if within else low > margin or high < -margin

    low, high = math.log(_LEAST_TAILS), math.log1p(-_LEAST_TAILS)
    for _ in range(60):  # bisection on the log of the tails: the interval shrinks as they grow
        middle = (low + high) / 2
        low, high = (low, middle) if apart(math.exp(middle)) else (middle, high)
    half = math.exp((low + high) / 2) / 2
    return half if within else 1.0 - half


def verdict(difference: Difference) -> str:
    """better | worse | inconclusive, of A against B.

    Not inconclusive only when the two-way 95 % interval excludes 0 and the sign agrees in at least k - 1 seeds (all seeds
    when k <= 2).

    >>> from evenhand.stats.twoway import paired_difference
    >>> verdict(paired_difference([1, 1, 1, 1, 1, 1, 0.9], [0, 0.1, 0, 0.2, 0, 0, 0]))
    'better'
    """
    return verdict_of(difference.ci95, difference.per_seed)


def verdict_of(ci95: Interval, per_seed: Sequence[float]) -> str:
    """The rule of `verdict` on an interval of a difference and the per-seed differences."""
    low, high = ci95
    if low <= 0.0 <= high:
        return INCONCLUSIVE
    sign = 1.0 if low > 0.0 else -1.0
    agreeing = sum(sign * d > 0.0 for d in per_seed)
    if agreeing < seeds_needed(len(per_seed)):
        return INCONCLUSIVE
    return BETTER if sign > 0 else WORSE


def seeds_needed(k: int) -> int:
    """Seeds of k whose sign a verdict needs: all of two, all but one of more."""
    return k if k <= 2 else k - 1


def _binomial_mid_p(positive: int, negative: int) -> float:
    n, fewest = positive + negative, min(positive, negative)
    below = float(bdtr(fewest - 1, n, 0.5)) if fewest else 0.0
    return below + float(bdtr(fewest, n, 0.5)) if n else 1.0  # 2 P(X < fewest) + P(X = fewest)
