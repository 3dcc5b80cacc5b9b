"""Win rates and differences when both training seeds and prompts are samples: the crossed, two-way interval.

Notation: y[s, i] is the outcome of training seed s on prompt i, d = y_A - y_B. The model is d[s, i] = Delta + u_s + v_i + e:
a seed shifts all its prompts together, so n prompts of one seed are not n independent looks at a *method*. The variance of
the mean has a seed part and a prompt part (`crossed`), and the interval stretches each by its own t quantile
(`intervals.half_width`). The common Satterthwaite form covers only 88-94 % at k = 2 and 92-95 % at k = 3, because it calls the
seed variance well known just when it was underestimated.

Two seeds can agree by chance, and then both parts are near 0. So no interval is narrower, and no p smaller, than that of the
prompts alone, which in turn is never narrower than two imagined prompts would make it (`crossed.least_variance`).
docs/statistics.md has the measured coverage and error rates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from evenhand.errors import UserError
from evenhand.stats.arrays import Array, as_outcomes, as_table, same_shape
from evenhand.stats.crossed import (
    Spread,
    imagined_variance,
    lattice,
    least_variance,
    mean_squares,
    seed_variance,
    spread,
    variance_components,
)
from evenhand.stats.intervals import (
    EQUAL,
    EXCLUDED,
    Component,
    Interval,
    half_width,
    satterthwaite,
    score_interval,
    score_p,
    score_part,
    sign_p,
    soft_wilson,
    two_sided_p,
)
from evenhand.stats.mixed import MixedWinRate, mixed_win_rate

MIXED_FROM = 4
"""Seeds from which on the mixed model widens a win rate's interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """Share of comparisons won, ties counting half, with intervals.

    `ci95` speaks of the method (new seeds, new prompts); `ci95_prompts_only` of these very checkpoints on new prompts. `p` tests
    a true win rate of one half and agrees with `ci95`. `wins`, `ties`, `losses` are shares of all outcomes (above, at, below one
    half). `mixed` is the binomial mixed model's view (wins and losses of several seeds), `ci95_two_way` what the interval is
    without it; `ci95` reaches as far as either. `note` says what the interval cannot say.
    """

    estimate: float
    ci95: Interval
    ci95_prompts_only: Interval
    ci95_two_way: Interval
    per_seed: tuple[float, ...]
    wins: float
    ties: float
    losses: float
    n: int
    k: int
    standard_error: float
    df: float
    p: float
    note: str
    components: tuple[Component, ...]
    score: Component
    spread: Spread
    mixed: MixedWinRate | None

    def interval(self, level: float) -> Interval:
        """The interval at another level; at 0.95 it is `ci95`."""
        model = self.mixed if self.k >= MIXED_FROM else None
        return _reaching(_rate_interval(self.estimate, self.score, self.components, model, level), 0.5, self.p, level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean outcome of A minus that of B (positive: A is higher), with intervals and a p-value that agree with each other.

    `ties` is the share of (seed, prompt) cells without a difference; `df` the effective (Satterthwaite) degrees of freedom;
    `floor` the variance of the prompts alone, below which no interval goes. `rate`: against a baseline of one half the
    difference is a win rate less one half, and has its interval and p.
    """

    estimate: float
    ci95: Interval
    ci95_prompts_only: Interval
    per_seed: tuple[float, ...]
    ties: float
    n: int
    k: int
    standard_error: float
    df: float
    p: float
    note: str
    components: tuple[Component, ...]
    floor: Component
    spread: Spread
    bounds: Interval = (-math.inf, math.inf)
    rate: WinRate | None = field(default=None, repr=False)

    def interval(self, level: float) -> Interval:
        """The two-way interval at another level, e.g. 0.90 for an equivalence test.

        >>> d = paired_difference([[1, 1, 0, 1], [1, 0, 0, 1]], [[0, 1, 0, 0], [0, 0, 1, 1]])
        >>> d.interval(0.95) == d.ci95
        True
        """
        if self.rate is not None:
            low, high = self.rate.interval(level)
            return low - 0.5, high - 0.5
        h = max(half_width(self.components, level), half_width([self.floor], level))
        low, high = max(self.estimate - h, self.bounds[0]), min(self.estimate + h, self.bounds[1])
        return _reaching((low, high), 0.0, self.p, level)


def win_rate(outcomes: ArrayLike) -> WinRate:
    """Win rate of one method against a fixed baseline: w = (wins + ties / 2) / n.

    `outcomes` [seeds, prompts] or [prompts] in [0, 1]: 1 win, 0.5 tie, 0 loss, or a soft preference. One seed: Wilson with
    the effective size of soft outcomes. Several seeds: the two-way interval in Wilson's shape, so it stays inside [0, 1], and
    for wins, ties and losses of four seeds or more the wider limit of it and the binomial mixed model's on either side, because
    large skewed seed effects leave the first too narrow (two or three seeds: the model's interval is mostly its prior, and
    stands in `mixed` alone). One prompt says nothing of others: 0 to 1.
    UserError on NaN or values outside [0, 1].

    >>> w = win_rate([1, 1, 0.5, 0])
    >>> w.estimate, w.ties, [round(x, 3) for x in w.ci95]
    (0.625, 0.25, [0.145, 0.942])
    """
    y = as_outcomes(outcomes, "win_rate")
    k, n = y.shape
    estimate, parts = float(y.mean()), variance_components(y, lattice(y))
    score = score_part(y.mean(axis=0))
    model = mixed_win_rate(y) if k > 1 and n > 1 and np.isin(y, (0.0, 0.5, 1.0)).all() else None
    p = _rate_p(estimate, score, parts, y.mean(axis=0))
    shown = model if k >= MIXED_FROM else None
    return WinRate(
        estimate=estimate,
        ci95=_reaching(_rate_interval(estimate, score, parts, shown, 0.95), 0.5, p, 0.95),
        ci95_prompts_only=soft_wilson(y.mean(axis=0)) if n > 1 else (0.0, 1.0),
        ci95_two_way=_reaching(_rate_interval(estimate, score, parts, None, 0.95), 0.5, p, 0.95),
        per_seed=_floats(y.mean(axis=1)),
        wins=float((y > 0.5).mean()),
        ties=float((y == 0.5).mean()),
        losses=float((y < 0.5).mean()),
        n=n,
        k=k,
        standard_error=_standard_error(parts),
        df=satterthwaite(parts),
        p=p,
        note=_note(k, n, _pinned(y.mean(axis=0), 0.5)),
        components=parts,
        score=score,
        spread=spread(y, lattice(y)),
        mixed=model,
    )


def paired_difference(a: ArrayLike, b: ArrayLike) -> Difference:
    """Difference of two methods measured on the same prompts with matched seeds (seed s of both shares data order and start).

    `a`, `b` [seeds, prompts] or [prompts], any real outcome (win, correctness, reward). One seed: the paired t interval.
    A side that is one half throughout is a baseline that the other's outcomes are against: the result is `win_rate` less 1/2.
    UserError when the shapes differ; seeds that are not matched go to `unmatched_difference`.

    >>> round(paired_difference([0.9, 0.4, 0.8], [0.5, 0.4, 0.6]).estimate, 6)
    0.2
    """
    left, right, bounded = _sides(a, b, "paired_difference")
    same_shape("paired_difference", a=left, b=right)
    if bounded and (against := _against_even(left, right)) is not None:
        return against
    d = left - right
    reach = _reach(left, right, d, bounded)
    gap = lattice(left, right)
    parts = variance_components(d, gap)
    return _difference(d.mean(axis=0), _floats(d.mean(axis=1)), parts, spread(d, gap), d == 0, len(d), reach, bounded)


def unmatched_difference(a: ArrayLike, b: ArrayLike) -> Difference:
    """Difference of two methods on the same prompts whose seeds have nothing in common; seed counts may differ.

    V = s_A^2/k_A + s_B^2/k_B + [Var_i(p)/n - MSE_A/(n k_A) - MSE_B/(n k_B)], p_i the difference of the seed means on prompt i;
    the bracket is the prompt part. Equal seed counts: the two seed parts are one part with Welch's degrees of freedom; unequal
    counts: two parts, because Welch's falls to 89 % when the noisier side has the fewer seeds. A side with one seed
    contributes no seed part, and the note says so. `per_seed` is each seed of A against the mean of B.
    """
    left, right, bounded = _sides(a, b, "unmatched_difference")
    if left.shape[1] != right.shape[1]:
        raise UserError(f"{left.shape[1]} and {right.shape[1]} prompts", where="unmatched_difference", fix="use the same prompts")
    if bounded and (against := _against_even(left, right)) is not None:
        return against
    p, k = left.mean(axis=0) - right.mean(axis=0), min(len(left), len(right))
    per_seed = _floats(left.mean(axis=1) - right.mean())
    parts, each = _unmatched_parts(left, right, p), [spread(left), spread(right)]
    together = Spread(  # as k matched seeds would have it; what both methods share on a prompt is in `prompt` alone
        seed=math.hypot(*(s.seed for s in each)), noise=math.hypot(*(s.noise for s in each)),
        prompt=math.sqrt(max(float(p.var(ddof=1)) - each[0].noise**2 / len(left) - each[1].noise**2 / len(right), 0.0)),
    ) if len(p) > 1 else each[0]  # fmt: skip
    return _difference(p, per_seed, parts, together, p == 0, k, _reach(left, right, p, bounded), bounded)


def _unmatched_parts(left: Array, right: Array, p: Array) -> tuple[Component, ...]:
    n = len(p)
    if n == 1:
        return (Component(math.inf, 1.0),)
    prompt_part, seed_parts, gap = float(p.var(ddof=1)) / n, [], lattice(left, right)
    for y in (left, right):
        k = len(y)
        if k > 1:
            ms = mean_squares(y)
            seed_parts.append(Component(seed_variance(ms, k, n, gap), k - 1))
            prompt_part -= ms.residual / (n * k)
    if len(left) == len(right) and seed_parts:
        seed_parts = [Component(sum(c.variance for c in seed_parts), satterthwaite(seed_parts))]
    return (*seed_parts, Component(max(prompt_part, 0.0), n - 1))


def _sides(a: ArrayLike, b: ArrayLike, where: str) -> tuple[Array, Array, bool]:
    """Both tables, and whether all their values are outcomes in [0, 1]; one prompt is enough for outcomes alone."""
    left, right = as_table(a, f"{where} a", at_least=1), as_table(b, f"{where} b", at_least=1)
    bounded = min(left.min(), right.min()) >= 0.0 and max(left.max(), right.max()) <= 1.0
    if left.shape[1] < 2 and not bounded:
        as_table(a, f"{where} a", at_least=2)
    return left, right, bool(bounded)


def _against_even(left: Array, right: Array) -> Difference | None:
    """The difference from a baseline whose outcome is one half by definition."""
    if (right == 0.5).all():
        sign, rate = 1.0, win_rate(left)
    elif (left == 0.5).all():
        sign, rate = -1.0, win_rate(1.0 - right)
    else:
        return None
    low, high = rate.ci95_prompts_only
    y = left if sign > 0 else 1.0 - right
    return Difference(
        estimate=rate.estimate - 0.5, ci95=(rate.ci95[0] - 0.5, rate.ci95[1] - 0.5), ci95_prompts_only=(low - 0.5, high - 0.5),
        per_seed=tuple(v - 0.5 for v in rate.per_seed), ties=rate.ties, n=rate.n, k=rate.k, standard_error=rate.standard_error,
        df=rate.df, p=rate.p, note=rate.note, components=rate.components, floor=least_variance(y.mean(axis=0), 0.5),
        spread=rate.spread, bounds=(-0.5, 0.5), rate=rate,
    )  # fmt: skip


def _reach(left: Array, right: Array, d: Array, bounded: bool) -> float:
    """How far one more prompt's difference may plausibly lie: the largest seen; where none was seen, what the outcomes allow.

    0 for rewards that vary: they have no bound, and their t interval needs no imagined prompts.
    """
    pooled = np.concatenate([left.ravel(), right.ravel()])
    scale = 1.0 if bounded else float(np.ptp(pooled)) or float(np.abs(pooled).max())
    if not bounded and np.ptp(d) > 1e-9 * scale:
        return 0.0
    largest = float(np.abs(d).max())
    return largest if largest > 1e-9 * scale else scale


def _difference(
    by_prompt: Array, per_seed: tuple[float, ...], parts: tuple[Component, ...], parted: Spread, ties: Array, k: int,
    reach: float, bounded: bool,
) -> Difference:  # fmt: skip
    estimate, n, floor = float(by_prompt.mean()), len(by_prompt), least_variance(by_prompt, reach)
    p = max(two_sided_p(estimate, parts), two_sided_p(estimate, [floor]))
    p = max(p, float(sign_p(by_prompt)))
    if pinned := _pinned(by_prompt, reach):
        p = max(p, 2.0 ** (1 - n) if estimate else 1.0)  # hardly any spread: at best, all signs agree
    bounds = (-1.0, 1.0) if bounded else (-math.inf, math.inf)
    draft = Difference(
        estimate=estimate, ci95=(math.nan, math.nan), ci95_prompts_only=(math.nan, math.nan), per_seed=per_seed,
        ties=float(ties.mean()), n=n, k=k, standard_error=_standard_error(parts), df=satterthwaite(parts), p=p,
        note=_note(k, n, pinned), components=parts, floor=floor, spread=parted, bounds=bounds,
    )  # fmt: skip
    h = half_width([floor])
    prompts_only = (max(estimate - h, bounds[0]), min(estimate + h, bounds[1]))
    return replace(draft, ci95=draft.interval(0.95), ci95_prompts_only=prompts_only)


def _rate_interval(
    estimate: float, score: Component, parts: Sequence[Component], model: MixedWinRate | None, level: float
) -> Interval:
    """Wilson's shape over the larger of the two-way and the prompts-only variance, and as far as the mixed model's."""
    low, high = score_interval(estimate, rate_quotient(estimate, score, parts, level))
    if model is not None:
        below, above = model.interval(level)
        low, high = min(low, below), max(high, above)
    return low, high


def rate_quotient(estimate: float, score: Component, parts: Sequence[Component], level: float) -> float:
    """What `score_interval` takes: t^2 v in units of w (1 - w), of the prompts alone or of seeds and prompts, the larger."""
    alone = half_width([score], level) ** 2
    return alone if len(parts) == 1 or is_certain(estimate) else max(alone, half_width(parts, level) ** 2 / _room(estimate))


def is_certain(estimate: float) -> bool:
    """Whether a share is 0 or 1 up to rounding."""
    return _room(estimate) < EQUAL


def _room(estimate: float) -> float:
    return estimate * (1.0 - estimate)


def _rate_p(estimate: float, score: Component, parts: Sequence[Component], by_prompt: Array) -> float:
    """Of a true rate of one half, by the score test that the interval inverts: (w - 1/2)^2 against a variance at w = 1/2.

    Seeds that differ much on the logit scale crowd near 0 or 1; there a t test on shares finds differences that are not: at a
    seed sd of 2 logits it is wrong 8 to 12 % of the time, this one 5.
    """
    p = max(score_p(estimate, score), float(sign_p(by_prompt - 0.5)))
    if len(parts) > 1 and not is_certain(estimate):
        p = max(p, two_sided_p(2.0 * math.sqrt(_room(estimate)) * (estimate - 0.5), parts))
    return max(p, 2.0 ** (1 - len(by_prompt))) if _pinned(by_prompt, 0.5) else p


def _pinned(by_prompt: Array, reach: float) -> bool:
    """Whether the prompts vary less than two imagined ones would make them."""
    n = len(by_prompt)
    return n == 1 or float(by_prompt.var(ddof=1)) / n < imagined_variance(n, reach)


def _reaching(interval: Interval, null: float, p: float, level: float) -> Interval:
    """The interval made to agree with its p: it holds `null` exactly when p >= 1 - level.

    As the set of all values that their own test does not reject it may use another test at `null` than elsewhere.
    """
    low, high = interval
    if p >= 1.0 - level:
        return min(low, null), max(high, null)
    if low <= null <= high:
        return (null + EXCLUDED, high) if high - null > null - low else (low, null - EXCLUDED)
    return interval


def _note(k: int, n: int, pinned: bool) -> str:
    notes = []
    if k == 1:
        notes.append("conditional on one run: nothing is known about other seeds")
    if k == 2:
        notes.append("two seeds: the interval is wide because one degree of freedom says little about seeds")
    if n == 1:
        notes.append("one prompt says nothing about others")
    elif pinned:
        notes.append("hardly any variation: the interval allows for two prompts that were not seen, one each way")
    return "; ".join(notes)


def _standard_error(parts: Sequence[Component]) -> float:
    return math.sqrt(sum(c.variance for c in parts))


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(float(v) for v in np.atleast_1d(values))
