"""Agreement between raters beyond chance: Cohen's kappa for two, Fleiss' kappa and Krippendorff's alpha for several.

1 is perfect agreement, 0 is what chance gives, below 0 is worse than chance. Where all ratings are one category nothing can be
said about chance, and the coefficient is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from evenhand.seeding import rng

Level = Literal["nominal", "ordinal", "interval"]
DRAWS = 500
"""Resamples of the items behind an interval."""


def cohen_kappa(a: Sequence[float], b: Sequence[float]) -> float:
    """Cohen's kappa of two raters on the same items, (p_o - p_e) / (1 - p_e); items that either left out (NaN) do not count.

    p_o is the share of equal ratings, p_e that of two raters who rate independently with these margins. Cohen, "A coefficient of
    agreement for nominal scales" (1960), eq. 1.

    >>> a, b = [1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    >>> round(cohen_kappa(a, b), 3)
    0.4
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if not len(x):
        return math.nan
    observed = float(np.mean(x == y))
    expected = sum(float(np.mean(x == c) * np.mean(y == c)) for c in np.union1d(x, y))
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def fleiss_kappa(counts: np.ndarray) -> float:
    """Fleiss' kappa from `counts` [items, categories]: how many of the raters, equally many for every item, chose a category.

    (P - P_e) / (1 - P_e), P the mean share of agreeing pairs of raters, P_e the sum of squared shares of the categories. Fleiss,
    "Measuring nominal scale agreement among many raters" (1971), eq. 7.

    Raises: ValueError where items have different numbers of raters, or fewer than two.
    """
    table = np.asarray(counts, dtype=float)
    raters = table.sum(axis=1)
    if not len(table) or raters.min() != raters.max() or raters[0] < 2:
        raise ValueError("every item needs the same number of raters, two or more")
    n = raters[0]
    observed = float(np.mean((np.square(table).sum(axis=1) - n) / (n * (n - 1))))
    expected = float(np.square(table.sum(axis=0) / table.sum()).sum())
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def krippendorff_alpha(ratings: np.ndarray, level: Level = "nominal") -> float:
    """Krippendorff's alpha, 1 - D_o / D_e, of `ratings` [raters, items]; NaN where a rater left an item out.

    D_o and D_e are the observed and the expected mean difference of two ratings of one item, from the coincidence matrix:
    "nominal" counts unequal ones, "interval" squares the distance, "ordinal" squares the number of ratings between them.
    Items with fewer than two ratings do not count. Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), part C.
    """
    table = np.asarray(ratings, dtype=float)
    values = np.unique(table[~np.isnan(table)])
    counts = np.stack([(table == v).sum(axis=0) for v in values], axis=1).astype(float) if len(values) else np.zeros((0, 0))
    counts = counts[counts.sum(axis=1) >= 2] if len(counts) else counts
    if not len(counts):
        return math.nan
    raters = counts.sum(axis=1, keepdims=True)
    coincidences = (counts / (raters - 1)).T @ counts - np.diag((counts / (raters - 1)).sum(axis=0))
    margins = coincidences.sum(axis=0)
    distance = _distances(values, margins, level)
    expected = float((np.outer(margins, margins) * distance).sum() / (margins.sum() - 1))
    return 1 - float((coincidences * distance).sum()) / expected if expected > 0 else math.nan


def _distances(values: np.ndarray, margins: np.ndarray, level: Level) -> np.ndarray:
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return np.square(values[:, None] - values[None, :])
    upto = np.cumsum(margins) - margins / 2  # ordinal: ratings between two values, half of those at either end
    return np.square(upto[:, None] - upto[None, :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """An agreement coefficient with its bootstrap interval over items (None where too few resamples have one)."""

    value: float
    ci95: tuple[float, float] | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far several raters agree. `fleiss` is over the items that all have rated; `pairs` has Cohen's kappa by names."""

    alpha: Coefficient
    fleiss: Coefficient
    pairs: Mapping[tuple[str, str], Coefficient]


def agreement_of(ratings: Mapping[str, Sequence[float]], level: Level = "ordinal") -> Agreement:
    """Agreement of named raters on the same items, NaN where one has no rating; `level` is that of Krippendorff's alpha.

    >>> found = agreement_of({"ann": [1, 1, 0, 0], "bob": [1, 1, 0, 1]})
    >>> round(found.pairs["ann", "bob"].value, 2), round(found.alpha.value, 2), found.alpha.n
    (0.5, 0.53, 4)
    """
    names = list(ratings)
    table = np.array([ratings[n] for n in names], dtype=float).reshape(len(names), -1)
    rated = (~np.isnan(table)).sum(axis=0)
    pairs = {
        (a, b): _with_interval(lambda t: cohen_kappa(t[0], t[1]), _kept(table[[i, j]], 2))
        for (i, a), (j, b) in combinations(enumerate(names), 2)
    }
    return Agreement(
        alpha=_with_interval(lambda t: krippendorff_alpha(t, level), table[:, rated >= 2]),
        fleiss=_with_interval(_fleiss_of, _kept(table, len(names))), pairs=pairs,
    )  # fmt: skip


def _kept(table: np.ndarray, raters: int) -> np.ndarray:
    return table[:, (~np.isnan(table)).sum(axis=0) == raters]


def _fleiss_of(table: np.ndarray) -> float:
    if table.shape[0] < 2 or not table.shape[1]:
        return math.nan
    return fleiss_kappa(np.stack([(table == v).sum(axis=0) for v in np.unique(table)], axis=1))


def _with_interval(coefficient: Callable[[np.ndarray], float], table: np.ndarray) -> Coefficient:
    value, items = coefficient(table), table.shape[1]
    if math.isnan(value):
        return Coefficient(value=value, ci95=None, n=items)
    draw = rng("agreement", items)
    found = np.array([coefficient(table[:, draw.integers(0, items, items)]) for _ in range(DRAWS)])
    found = found[~np.isnan(found)]
    if len(found) < DRAWS / 2:
        return Coefficient(value=value, ci95=None, n=items)
    low, high = np.quantile(found, (0.025, 0.975))
    return Coefficient(value=value, ci95=(float(low), float(high)), n=items)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatNoise:
    """What a judge's own chance adds: `sd` of one judging of a pair, and the `share` of the variance over prompts of its mean."""

    sd: float
    share: float
    repeats: int


def repeat_noise(outcomes: np.ndarray) -> RepeatNoise:
    """The part of the variance over prompts that a judge who always says the same would not add; `outcomes` [repeats, prompts].

    sd^2 is the mean over prompts of the unbiased variance over repeats; share = sd^2 / r over the variance of the means over
    repeats (a one-way random-effects model, Searle et al., "Variance components", 1992, ch. 3), at most 1; 0 without variance.

    >>> repeat_noise(np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]]))
    RepeatNoise(sd=0.5, share=0.75, repeats=2)
    """
    repeats = len(outcomes)
    within = float(outcomes.var(axis=0, ddof=1).mean())
    total = float(outcomes.mean(axis=0).var(ddof=1)) if outcomes.shape[1] > 1 else 0.0
    share = min(within / repeats / total, 1.0) if total > 0 else float(within > 0)
    return RepeatNoise(sd=math.sqrt(within), share=share, repeats=repeats)
