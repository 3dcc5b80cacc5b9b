"""Planning by simulation of the report's own verdict: what a design resolves, with what power, and how many prompts it takes.

A paired difference has the variance parts of `crossed.Spread`: `sd_seed` of a seed's effect, `sd_prompt` of what a prompt has in
every seed, `sd_noise` of single answers. One simulated study of k seeds and n prompts without a true difference is
    row_s ~ N(0, sd_seed^2 + sd_noise^2 / n),  v ~ N(0, sd_prompt^2 / n),  estimate = mean_s row_s + v,
    MS_S = n Var(row),  MS_P ~ (sd_noise^2 + k sd_prompt^2) chi^2_{n-1} / (n-1),  MS_E ~ sd_noise^2 chi^2 / df,
all independent. Its interval does not depend on the truth, so each study has a threshold: the smallest true difference at which
it would have said "better", seeds agreeing. Power is the share of thresholds below a difference, and what a design resolves is a
quantile of them: both are of the very rule that the report applies. Against a baseline of one half that is the score test of
`twoway.win_rate`, which asks more of large differences (`Spread` as of the outcomes less one half).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy.special import ndtri

from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.stats.arrays import Array
from evenhand.stats.crossed import Spread
from evenhand.stats.intervals import SUREST, Component, half_widths
from evenhand.stats.tests import seeds_needed
from evenhand.stats.twoway import Difference

DRAWS = 20_000
"""Simulated studies; a power near 80 % is then known to 0.3 points."""
MOST_PROMPTS = 10_000_000
MOST_SEEDS = 13
"""More are no remedy: all but one of them must agree in sign."""


def minimum_detectable_difference(
    prompts: int, seeds: int, *, sd_prompt: float, sd_seed: float = 0.0, power: float = 0.8, alpha: float = 0.05
) -> float:
    """What no design with these spreads can beat: the limit in which they are known, not estimated (normal approximation).

    (z_{1 - alpha/2} + z_power) sqrt(sd_seed^2 / k + sd_prompt^2 / n): no number of prompts helps below the seed term.
    `sd_seed` is of a seed's effect on the *difference* (two independent methods with seed sd u each: u sqrt 2). What a design
    with few seeds really finds is `planned_resolution`, which is larger.

    >>> round(minimum_detectable_difference(10**9, 3, sd_prompt=0.6, sd_seed=0.02 * 2**0.5), 3)
    0.046
    """
    _check_design(prompts, seeds, power, alpha)
    return float(ndtri(1 - alpha / 2) + ndtri(power)) * math.sqrt(sd_seed**2 / seeds + sd_prompt**2 / prompts)


def resolved_by(difference: Difference, *, power: float = 0.8, alpha: float = 0.05, contrasts: int = 1) -> float:
    """The difference that this very design, with the spreads it found, would have called better with probability `power`.

    Printed with an inconclusive verdict: "no difference resolved (minimum detectable difference ...)". `contrasts`: how many the
    verdict is corrected for (Holm's first step). Infinite for one prompt, and for a look that has next to nothing left to err.
    Outcomes that never varied tell no spread: what they leave open is half of their interval.
    """
    if difference.n < 2 or alpha / contrasts < 1 - SUREST:
        return math.inf
    _check_design(difference.n, difference.k, power, alpha)
    needed = _by_score if difference.rate is not None else None
    found = _resolution(difference.n, difference.k, difference.spread, power, alpha / contrasts, needed)
    if found > 0.0:
        return found
    low, high = difference.interval(1 - alpha / contrasts)
    return (high - low) / 2


def planned_resolution(
    prompts: int, seeds: int, *, sd_noise: float, sd_prompt: float = 0.0, sd_seed: float = 0.0, power: float = 0.8,
    alpha: float = 0.05, contrasts: int = 1, gap: float = 0.0,
) -> float:  # fmt: skip
    """The true difference that a design calls better with probability `power`; one seed: of these very checkpoints.

    >>> round(planned_resolution(800, 1, sd_noise=0.6), 2), round(planned_resolution(800, 5, sd_noise=0.6, sd_seed=0.02), 2)
    (0.06, 0.05)
    """
    _check_design(prompts, seeds, power, alpha)
    if prompts < 2:
        raise UserError("one prompt is not a design", where="planned_resolution")
    return _resolution(prompts, seeds, Spread(sd_seed, sd_prompt, sd_noise, gap), power, alpha / contrasts)


def power(
    difference: float, prompts: int, seeds: int, *, sd_noise: float, sd_prompt: float = 0.0, sd_seed: float = 0.0,
    alpha: float = 0.05, contrasts: int = 1, gap: float = 0.0,
) -> float:  # fmt: skip
    """Probability that the report calls a true `difference` by its name, seeds agreeing; `contrasts` as in `resolved_by`."""
    _check_design(prompts, seeds, 0.8, alpha)
    if prompts < 2:
        return 0.0
    reached = thresholds(prompts, seeds, Spread(sd_seed, sd_prompt, sd_noise, gap), alpha / contrasts)
    return float((reached < abs(difference)).mean())


def prompts_needed(
    difference: float, *, sd_noise: float, seeds: int = 1, sd_prompt: float = 0.0, sd_seed: float = 0.0, power: float = 0.8,
    alpha: float = 0.05, contrasts: int = 1, gap: float = 0.0,
) -> int:  # fmt: skip
    """The fewest prompts at which `planned_resolution` is at most `difference` (to 1 %).

    UserError where the seed effect alone hides the difference, so that no number of prompts is enough.

    >>> 1100 < prompts_needed(0.05, sd_noise=0.6) < 1160
    True
    """
    _check_design(2, seeds, power, alpha)
    if difference == 0.0:
        raise UserError("a difference of 0 needs infinitely many prompts", where="prompts_needed")
    spread, wished, level = Spread(sd_seed, sd_prompt, sd_noise, gap), abs(difference), alpha / contrasts

    def enough(n: int) -> bool:
        return _resolution(n, seeds, spread, power, level) <= wished

    low, high = 2, 4
    while not enough(high):
        low, high = high, high * 2
        if high > MOST_PROMPTS:
            raise _hopeless(wished, seeds, sd_seed, power, level)
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def thresholds(
    prompts: int, seeds: int, spread: Spread, alpha: float, needed: Callable[[Array], Array] | None = None, draws: int = DRAWS
) -> Array:
    """[draws] the smallest true difference at which each simulated study says "better"; see the module.

    `needed`: the estimate that a half-width takes to exclude 0, itself by default.
    """
    n, k, chance = prompts, seeds, _drawn(prompts, seeds, draws)
    sd_row = math.sqrt(spread.seed**2 + spread.noise**2 / n)
    v = spread.prompt / math.sqrt(n) * chance.prompts
    by_prompt = (spread.noise**2 + k * spread.prompt**2) * chance.prompt_squares / (n - 1)
    floor = _part(by_prompt / (n * k), n - 1)
    half = half_widths([floor], 1 - alpha)
    if k > 1:
        df = (k - 1) * (n - 1)
        residual = spread.noise**2 * chance.residual_squares / df
        seeds_sd = sd_row * chance.spread + spread.gap / (n * math.sqrt(8.0))
        parts = [_part(seeds_sd**2 / k, k - 1), _part(np.maximum(by_prompt - residual, 0) / (n * k), n - 1)]
        half = np.maximum(half, half_widths(parts, 1 - alpha))
    estimate = half if needed is None else needed(half)
    beyond = spread.gap / (2 * n)  # a seed whose wins and losses are even agrees with nobody
    return np.asarray(np.maximum(estimate - sd_row * chance.mean - v, beyond - sd_row * chance.agreeing - v))


@dataclass(frozen=True, slots=True)
class _Chance:
    """What is drawn for the studies [draws] of a design, in units of its spreads.

    Of the seeds' normal rows their `mean`, their `spread` and the highest that enough of them reach (`agreeing`); of the prompts
    a normal mean; `prompt_squares` and `residual_squares`, two sums of squares.
    """

    mean: Array
    spread: Array
    agreeing: Array
    prompts: Array
    prompt_squares: Array
    residual_squares: Array


@functools.lru_cache(maxsize=4)
def _drawn(prompts: int, seeds: int, draws: int) -> _Chance:
    """The same for every spread, so that designs differ by nothing else, and drawn once."""
    draw, several = rng(0, "planning", prompts, seeds), seeds > 1
    rows = draw.standard_normal((draws, seeds))
    return _Chance(
        mean=rows.mean(axis=1),
        spread=rows.std(axis=1, ddof=1) if several else np.zeros(draws),
        agreeing=np.sort(rows, axis=1)[:, seeds - seeds_needed(seeds)],
        prompts=draw.standard_normal(draws),
        prompt_squares=draw.chisquare(prompts - 1, draws),
        residual_squares=draw.chisquare((seeds - 1) * (prompts - 1), draws) if several else np.zeros(draws),
    )


def _part(variances: Array, df: float) -> Component:
    """A part of many studies at once."""
    return Component(cast(float, variances), df)


def _by_score(half: Array) -> Array:
    """The win rate less one half, e, at which the score test excludes one half: e sqrt(1 - 4 e^2) = half; none above 1/4."""
    within = np.minimum(half, 0.25)
    return np.where(half > 0.25, math.inf, np.sqrt((1 - np.sqrt(1 - 16 * within**2)) / 8))


def _resolution(
    prompts: int, seeds: int, spread: Spread, power: float, alpha: float, needed: Callable[[Array], Array] | None = None
) -> float:
    if not all(map(math.isfinite, (spread.seed, spread.prompt, spread.noise))):
        return math.inf
    reached = thresholds(prompts, seeds, spread, alpha, needed)
    place = math.ceil(power * (len(reached) - 1))
    return max(float(np.partition(reached, place)[place]), 0.0)


def _hopeless(wished: float, seeds: int, sd_seed: float, power: float, alpha: float) -> UserError:
    for more in range(seeds + 1, MOST_SEEDS):
        if _resolution(MOST_PROMPTS, more, Spread(sd_seed, 0.0, 0.0), power, alpha) <= wished:
            fix = f"use at least {more} seeds"
            break
    else:
        fix = "look for a larger difference: with more seeds, all but one must still agree"
    return UserError(
        f"no number of prompts resolves {wished:g} with {seeds} seeds",
        where="prompts_needed",
        why=f"a seed effect of sd {sd_seed:g} alone hides it",
        fix=fix,
    )


def _check_design(prompts: int, seeds: int, power: float, alpha: float) -> None:
    if prompts < 1 or seeds < 1 or not 0.0 < power < 1.0 or not 0.0 < alpha < 1.0:
        raise UserError(f"prompts={prompts}, seeds={seeds}, power={power}, alpha={alpha} is not a design", where="design")
