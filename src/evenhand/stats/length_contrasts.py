"""Two methods at equal length: the difference of their length-controlled win rates over one baseline, over seeds and prompts.

    estimate    LC_a - LC_b, each fitted on all seeds
    seed part   A = Var_s(LC_a,s - LC_b,s) / k     every seed fitted by itself; k - 1 degrees of freedom
    prompt part B = max(V - (mean_s V_s - V) / (k - 1), 0)     n - 1 degrees of freedom
    interval    estimate +- sqrt(t^2_{k-1} A + t^2_{n-1} B)

V is the variance of LC_a - LC_b over resampled prompts, the same for both arms, and V_s that of seed s alone. The noise of single
answers is in A already; its share of V, (mean_s V_s - V) / (k - 1), is taken out, as `twoway` does with MS_E. With one seed
B = V, and the interval speaks of these checkpoints only. As in `twoway`, no interval is narrower, and no p smaller, than that of
the prompts alone: sqrt(V) t_{n-1}, V never below what two imagined prompts would make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from evenhand.stats.arrays import Array, as_table
from evenhand.stats.crossed import imagined_variance
from evenhand.stats.intervals import Component, Interval, half_width, two_sided_p
from evenhand.stats.length import Gamed, LengthControlled, LengthPrior, length_controlled_draws

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
    """Positive: the first is higher at equal length. Interval and p agree with each other; `scope` is what they speak of."""

    estimate: float
    ci95: Interval
    per_seed: tuple[float, ...]
    p: float
    scope: str
    components: tuple[Component, ...]
    floor: Component
    most: float

    def interval(self, level: float) -> Interval:
        """The interval at another level, within what a difference of rates can be: 1, and 1/2 against one half."""
        h = max(half_width(self.components, level), half_width([self.floor], level))
        return max(self.estimate - h, -self.most), min(self.estimate + h, self.most)


def at_equal_length(
    preference: ArrayLike,
    length_model: ArrayLike,
    length_baseline: ArrayLike,
    difficulty: ArrayLike | None = None,
    *,
    prior: LengthPrior | None = None,
    gamed: Sequence[Gamed] = (),
    draws: int,
) -> AtEqualLength:
    """One method's fits; arguments as in `length_controlled`, all [seeds, n], `difficulty` [n].

    `overall` carries the one interval of the quantity, over seeds and prompts where there are several seeds, and its scope.
    """
    y, model, baseline = (as_table(v, "at_equal_length") for v in (preference, length_model, length_baseline))
    baseline = np.repeat(baseline, len(y), axis=0) if len(baseline) == 1 else baseline
    fit = partial(length_controlled_draws, prior=prior, gamed=gamed, draws=draws)
    overall, together = fit(y, model, baseline, difficulty)
    seeds = range(len(y)) if len(y) > 1 else ()  # one seed by itself is all of them
    apart = [fit(y[s], model[s], baseline[s], difficulty) for s in seeds] or [(overall, together)]
    estimates, drawn = np.array([one.estimate for one, _ in apart]), np.stack([d for _, d in apart])
    found = AtEqualLength(overall, estimates, together, drawn, y.shape[1])
    if np.isnan([overall.estimate, *estimates]).any():
        why = next((one.note for one, _ in apart if np.isnan(one.estimate)), "")
        if len(y) > 1 and not np.isnan(overall.estimate):
            why = "; ".join(filter(None, [overall.note, f"no interval over seeds: a seed by itself is {why}"]))
            overall = replace(overall, note=why)
        return replace(found, overall=overall, draws=np.full_like(together, np.nan), seed_draws=np.full_like(drawn, np.nan))
    against = length_controlled_difference(found, the_baseline(len(y), y.shape[1], draws))
    if against is None:
        return found
    low, high = against.ci95
    return replace(found, overall=replace(overall, ci95=(max(low + EVEN, 0.0), min(high + EVEN, 1.0)), scope=against.scope))


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
    floor = Component(max(variance, imagined_variance(a.n, EVEN)), a.n - 1)
    p = max(two_sided_p(estimate, parts), two_sided_p(estimate, [floor]))
    draft = LengthControlledDifference(
        estimate=estimate,
        ci95=(0.0, 0.0),
        per_seed=tuple(per_seed.tolist()),
        p=p,
        scope="seeds and prompts" if k > 1 else "prompts",
        components=tuple(parts),
        floor=floor,
        most=EVEN if a.overall is None or b.overall is None else 1.0,
    )
    return replace(draft, ci95=draft.interval(0.95))
