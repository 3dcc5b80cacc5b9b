"""Two methods at equal length: the difference of their length-controlled win rates over one baseline, over seeds and prompts.

    estimate    LC_a - LC_b, each fitted on all seeds
    seed part   A = Var_s(LC_a,s - LC_b,s) / k     every seed fitted by itself; k - 1 degrees of freedom
    prompt part B = max(V - (mean_s V_s - V) / (k - 1), 0)     n - 1 degrees of freedom
    interval    estimate +- sqrt(t^2_{k-1} A + t^2_{n-1} B)

V is the variance of LC_a - LC_b over resampled prompts, the same for both arms, and V_s that of seed s alone. The noise of single
answers is in A already; its share of V, (mean_s V_s - V) / (k - 1), is taken out, as `twoway` does with MS_E. With one seed
B = V, and the interval speaks of these checkpoints only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evenhand.stats.arrays import Array, as_table
from evenhand.stats.intervals import Component, Interval, half_width, two_sided_p
from evenhand.stats.length import LengthControlled, length_controlled_draws

EVEN = 0.5
"""A baseline's length-controlled win rate against itself."""


@dataclass(frozen=True, slots=True)
class AtEqualLength:
    """One method's length-controlled win rate: `overall`, `per_seed` [k], and both on resampled prompts; NaN where refused.

    `draws` [D] are of `overall`, `seed_draws` [k, D] of single seeds.
    """

    overall: LengthControlled | None
    per_seed: Array
    draws: Array
    seed_draws: Array
    n: int

    @property
    def estimate(self) -> float:
        return EVEN if self.overall is None else self.overall.estimate

    @property
    def known(self) -> bool:
        """False where the data cannot support one; see `length_controlled`."""
        return bool(np.isfinite(self.estimate) and np.isfinite(self.per_seed).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthControlledDifference:
    """Positive: the first is higher at equal length. Interval and p agree with each other."""

    estimate: float
    ci95: Interval
    per_seed: tuple[float, ...]
    p: float


def at_equal_length(
    preference: ArrayLike, length_model: ArrayLike, length_baseline: ArrayLike, difficulty: ArrayLike | None = None, *, draws: int
) -> AtEqualLength:
    """One method's fits; arguments as in `length_controlled`, all [seeds, n], `difficulty` [n]."""
    y, model, baseline = (as_table(v, "at_equal_length") for v in (preference, length_model, length_baseline))
    overall, together = length_controlled_draws(y, model, baseline, difficulty, draws=draws)
    apart = [length_controlled_draws(y[s], model[s], baseline[s], difficulty, draws=draws) for s in range(len(y))]
    estimates, drawn = np.array([one.estimate for one, _ in apart]), np.stack([d for _, d in apart])
    if np.isnan([overall.estimate, *estimates]).any():
        together, drawn = np.full_like(together, np.nan), np.full_like(drawn, np.nan)
    return AtEqualLength(overall, estimates, together, drawn, y.shape[1])


def the_baseline(seeds: int, n: int, draws: int) -> AtEqualLength:
    """The baseline itself: one half, without doubt."""
    return AtEqualLength(None, np.full(seeds, EVEN), np.full(draws, EVEN), np.full((seeds, draws), EVEN), n)


def length_controlled_difference(a: AtEqualLength, b: AtEqualLength) -> LengthControlledDifference | None:
    """a minus b, on the same prompts and matched seeds; None where either is not known."""
    if not (a.known and b.known):
        return None
    per_seed, estimate = a.per_seed - b.per_seed, a.estimate - b.estimate
    k = len(per_seed)
    variance = float((a.draws - b.draws).var(ddof=1))
    parts = [Component(variance, a.n - 1)]
    if k > 1:
        single = float((a.seed_draws - b.seed_draws).var(axis=1, ddof=1).mean())
        noise = max(single - variance, 0.0) / (k - 1)
        parts = [Component(float(per_seed.var(ddof=1)) / k, k - 1), Component(max(variance - noise, 0.0), a.n - 1)]
    h = half_width(parts)
    p = two_sided_p(estimate, parts) if h > 0.0 else float(estimate == 0.0)
    return LengthControlledDifference(
        estimate=estimate, ci95=(estimate - h, estimate + h), per_seed=tuple(per_seed.tolist()), p=p
    )
