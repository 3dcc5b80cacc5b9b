"""Win rates and differences when both training seeds and prompts are samples: the crossed, two-way interval.

Notation: y[s, i] is the outcome of training seed s on prompt i, d = y_A - y_B. The model is d[s, i] = Delta + u_s + v_i + e:
a seed shifts all its prompts together, so n prompts of one seed are not n independent looks at a *method*. The variance of
the mean has a seed part and a prompt part, estimated from the two-way mean squares
    MS_S = n Var_s(mean over prompts),  MS_P = k Var_i(mean over seeds),  MS_E = the residual mean square,
    seed part = MS_S / nk  (k - 1 df),  prompt part = max(MS_P - MS_E, 0) / nk  (n - 1 df).
The interval stretches each part by its own t quantile (`intervals.half_width`). The common Satterthwaite form covers only
88-94 % at k = 2 and 92-95 % at k = 3, because it calls the seed variance well known just when it was underestimated;
docs/statistics.md has the measured coverage of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evenhand.errors import UserError
from evenhand.stats.arrays import Array, as_outcomes, as_table, same_shape
from evenhand.stats.intervals import (
    Component,
    Interval,
    half_width,
    satterthwaite,
    score_interval,
    soft_wilson,
    t_interval,
    two_sided_p,
    wilson,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """Share of comparisons won, ties counting half, with intervals.

    `ci95` speaks of the method (new seeds, new prompts); `ci95_prompts_only` of these very checkpoints on new prompts.
    `wins`, `ties`, `losses` are shares of all outcomes (above, at, below one half). `note` says what the interval cannot say.
    """

    estimate: float
    ci95: Interval
    ci95_prompts_only: Interval
    per_seed: tuple[float, ...]
    wins: float
    ties: float
    losses: float
    n: int
    k: int
    standard_error: float
    df: float
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean outcome of A minus that of B (positive: A is higher), with intervals and a p-value that agree with each other.

    `ties` is the share of (seed, prompt) cells without a difference; `df` the effective (Satterthwaite) degrees of freedom.
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

    def interval(self, level: float) -> Interval:
        """The two-way interval at another level, e.g. 0.90 for an equivalence test.

        >>> d = paired_difference([[1, 1, 0, 1], [1, 0, 0, 1]], [[0, 1, 0, 0], [0, 0, 1, 1]])
        >>> d.interval(0.95) == d.ci95
        True
        """
        h = half_width(self.components, level)
        return self.estimate - h, self.estimate + h


def win_rate(outcomes: ArrayLike) -> WinRate:
    """Win rate of one method against a fixed baseline: w = (wins + ties / 2) / n.

    `outcomes` [seeds, prompts] or [prompts] in [0, 1]: 1 win, 0.5 tie, 0 loss, or a soft preference. One seed: Wilson with
    the effective size of soft outcomes. Several seeds: the two-way interval in Wilson's shape, so it stays inside [0, 1].
    UserError on NaN or values outside [0, 1].

    >>> w = win_rate([1, 1, 0.5, 0])
    >>> w.estimate, w.ties, [round(x, 3) for x in w.ci95]
    (0.625, 0.25, [0.258, 0.889])
    """
    y = as_outcomes(outcomes, "win_rate")
    k, n = y.shape
    estimate, parts = float(y.mean()), variance_components(y)
    if k == 1:
        interval = soft_wilson(y[0])
    elif 0.0 < estimate < 1.0:
        interval = score_interval(estimate, half_width(parts))
    else:
        interval = wilson(estimate, n)
    return WinRate(
        estimate=estimate,
        ci95=interval,
        ci95_prompts_only=soft_wilson(y.mean(axis=0)),
        per_seed=_floats(y.mean(axis=1)),
        wins=float((y > 0.5).mean()),
        ties=float((y == 0.5).mean()),
        losses=float((y < 0.5).mean()),
        n=n,
        k=k,
        standard_error=_standard_error(parts),
        df=satterthwaite(parts),
        note=_note(k, interval),
    )


def paired_difference(a: ArrayLike, b: ArrayLike) -> Difference:
    """Difference of two methods measured on the same prompts with matched seeds (seed s of both shares data order and start).

    `a`, `b` [seeds, prompts] or [prompts], any real outcome (win, correctness, reward). One seed: the paired t interval.
    UserError when the shapes differ; seeds that are not matched go to `unmatched_difference`.

    >>> round(paired_difference([0.9, 0.4, 0.8], [0.5, 0.4, 0.6]).estimate, 6)
    0.2
    """
    left, right = as_table(a, "paired_difference a"), as_table(b, "paired_difference b")
    same_shape("paired_difference", a=left, b=right)
    d = left - right
    return _difference(d.mean(axis=0), _floats(d.mean(axis=1)), variance_components(d), float((d == 0).mean()), len(d))


def unmatched_difference(a: ArrayLike, b: ArrayLike) -> Difference:
    """Difference of two methods on the same prompts whose seeds have nothing in common; seed counts may differ.

    V = s_A^2/k_A + s_B^2/k_B + [Var_i(p)/n - MSE_A/(n k_A) - MSE_B/(n k_B)], p_i the difference of the seed means on prompt i;
    the bracket is the prompt part. Equal seed counts: the two seed parts are one part with Welch's degrees of freedom; unequal
    counts: two parts, because Welch's falls to 89 % when the noisier side has the fewer seeds. A side with one seed
    contributes no seed part, and the note says so. `per_seed` is each seed of A against the mean of B.
    """
    left, right = as_table(a, "unmatched_difference a"), as_table(b, "unmatched_difference b")
    if left.shape[1] != right.shape[1]:
        raise UserError(f"{left.shape[1]} and {right.shape[1]} prompts", where="unmatched_difference", fix="use the same prompts")
    p = left.mean(axis=0) - right.mean(axis=0)
    n = len(p)
    prompt_part = float(p.var(ddof=1)) / n
    seed_parts = []
    for y in (left, right):
        k = len(y)
        if k > 1:
            seed_parts.append(Component(float(y.mean(axis=1).var(ddof=1)) / k, k - 1))
            prompt_part -= mean_squares(y).residual / (n * k)
    if len(left) == len(right) and seed_parts:
        seed_parts = [Component(sum(c.variance for c in seed_parts), satterthwaite(seed_parts))]
    parts = (*seed_parts, Component(max(prompt_part, 0.0), n - 1))
    k = min(len(left), len(right))
    per_seed = _floats(left.mean(axis=1) - right.mean())
    return _difference(p, per_seed, parts, float((p == 0).mean()), k)


@dataclass(frozen=True, slots=True)
class MeanSquares:
    """The two-way analysis of variance of a [seeds, prompts] table without replication; k, n >= 2."""

    seeds: float
    prompts: float
    residual: float


def mean_squares(table: Array) -> MeanSquares:
    """MS_S (k-1 df), MS_P (n-1 df) and MS_E ((k-1)(n-1) df) of a table [k, n]."""
    k, n = table.shape
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    residual = table - rows[:, None] - columns[None, :] + table.mean()
    return MeanSquares(
        seeds=n * float(rows.var(ddof=1)),
        prompts=k * float(columns.var(ddof=1)),
        residual=float((residual**2).sum()) / ((k - 1) * (n - 1)),
    )


def variance_components(table: Array) -> tuple[Component, ...]:
    """The independent parts of the variance of a [seeds, prompts] table's mean: seeds and prompts, or prompts alone at k = 1."""
    k, n = table.shape
    if k == 1:
        return (Component(float(table[0].var(ddof=1)) / n, n - 1),)
    ms = mean_squares(table)
    return (
        Component(ms.seeds / (n * k), k - 1),
        Component(max(ms.prompts - ms.residual, 0.0) / (n * k), n - 1),
    )


def _difference(by_prompt: Array, per_seed: tuple[float, ...], parts: tuple[Component, ...], ties: float, k: int) -> Difference:
    estimate, n, h = float(by_prompt.mean()), len(by_prompt), half_width(parts)
    interval = (estimate - h, estimate + h)
    return Difference(
        estimate=estimate,
        ci95=interval,
        ci95_prompts_only=t_interval(by_prompt),
        per_seed=per_seed,
        ties=ties,
        n=n,
        k=k,
        standard_error=_standard_error(parts),
        df=satterthwaite(parts),
        p=two_sided_p(estimate, parts) if h > 0.0 or estimate == 0.0 else 2.0 ** (1 - n),  # no spread: all signs agree
        note=_note(k, interval),
        components=parts,
    )


def _note(k: int, interval: Interval) -> str:
    notes = []
    if k == 1:
        notes.append("conditional on one run: nothing is known about other seeds")
    if k == 2:
        notes.append("two seeds: the interval is wide because one degree of freedom says little about seeds")
    if interval[0] == interval[1]:
        notes.append("no variation at all: the interval has no width")
    return "; ".join(notes)


def _standard_error(parts: tuple[Component, ...]) -> float:
    return math.sqrt(sum(c.variance for c in parts))


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(float(v) for v in np.atleast_1d(values))
