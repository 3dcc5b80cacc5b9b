"""Length-controlled win rates: what the win rate would be if both answers were equally long.

The model is P(model wins on i) = sigma(phi tanh(z_i) + psi d_i + theta), with z_i = (len_baseline - len_model)_i / sd over the
rows (not centred) and d_i an optional fixed difficulty of the prompt. The length-controlled win rate sets the length term to
zero: LC = mean_i sigma(psi d_i + theta). phi < 0 means that longer answers win. Dubois et al. 2024 (arXiv:2404.04475), eq. 2.

AlpacaEval's published number also trains on its baseline's verbose and concise answers; without them this is their
`length_controlled_noreg`, called `lc_noreg` here, and within about 1.5 points of theirs on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.stats.arrays import Array, as_table, as_vector, same_shape
from evenhand.stats.intervals import Interval
from evenhand.stats.logistic import l1_logistic, ridge_logistic

RIDGE = 1e-3
"""Precision of the zero-centred prior that keeps separable data finite; it moved no LC by more than 0.01 points at n = 805."""


@dataclass(frozen=True, slots=True)
class LengthPrior:
    """A Gaussian prior on the length effect phi: penalty 1/2 precision (phi - mean)^2. It stands in for gamed baselines."""

    mean: float
    precision: float


GPT4_CLASS_JUDGE = LengthPrior(mean=-1.6, precision=15.0)
"""For judges of the GPT-4 class: AlpacaEval's fitted phi (-1.58, -1.64) and the information of its 161 effective gamed rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthControlled:
    """A length-controlled win rate `estimate` in [0, 1]; NaN with the reason in `note` where the data cannot support one.

    `ci95` comes from resampling prompts and refitting; it speaks of these checkpoints only. `length_effect` phi,
    `difficulty_effect` psi (NaN without difficulty) and `ability` theta are logits. `win_rate` is the raw one.
    """

    estimate: float
    ci95: Interval
    win_rate: float
    length_effect: float
    difficulty_effect: float
    ability: float
    mean_length_model: float
    mean_length_baseline: float
    n: int
    form: str
    note: str


@dataclass(frozen=True, slots=True)
class _Rows:
    """Flattened comparisons: outcome, lengths, features [m, 2 or 3] (tanh z, difficulty, 1), and the prompt count n (m = k n)."""

    y: Array
    model: Array
    baseline: Array
    x: Array
    n: int
    z_mean: float


def length_controlled(
    preference: ArrayLike,
    length_model: ArrayLike,
    length_baseline: ArrayLike,
    difficulty: ArrayLike | None = None,
    *,
    prior: LengthPrior | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> LengthControlled:
    """The length-controlled win rate with a prompt-bootstrap interval (form `lc_noreg`; `lc_minimal` without difficulty).

    `preference` [n] or [seeds, n]: probability that the model beats the baseline in [0, 1], or AlpacaEval's coding in [1, 2]
    (recognised by values above 1); lengths of the same shape in one unit (AlpacaEval: characters), the baseline's may be [n];
    `difficulty` [n]. `prior` shrinks phi towards a known judge's (use only for a judge it was measured on).
    Refuses (NaN) when all length gaps are equal, |mean z| > 2 (no common support), or all outcomes are equal.
    Equals the raw win rate in expectation when outcomes do not depend on length.

    >>> y, gap = [1, 1, 1, 0, 0, 0, 1, 0], np.array([90, 80, 70, -90, -80, -70, -60, 60])
    >>> lc = length_controlled(y, 300 + gap, [300] * 8, draws=50)
    >>> lc.win_rate, round(lc.estimate, 2), lc.length_effect < 0
    (0.5, 0.5, True)
    """
    return length_controlled_draws(preference, length_model, length_baseline, difficulty, prior=prior, draws=draws, seed=seed)[0]


def length_controlled_draws(
    preference: ArrayLike,
    length_model: ArrayLike,
    length_baseline: ArrayLike,
    difficulty: ArrayLike | None = None,
    *,
    prior: LengthPrior | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[LengthControlled, Array]:
    """`length_controlled`, and [draws] its estimate on the resampled prompts behind its interval (NaN where it refuses).

    The draws depend on `seed` and the number of prompts alone: those of two policies on the same prompts are paired, so the
    spread of their differences is that of the difference. Arguments as in `length_controlled`, which says what it refuses.
    """
    rows = _rows(preference, length_model, length_baseline, difficulty)
    form = "lc_minimal" if difficulty is None else "lc_noreg"
    form += "" if prior is None else "_prior"
    refusal = _refusal(rows)
    if refusal:
        unknown = np.full(rows.x.shape[1], math.nan)
        return _result(rows, unknown, (math.nan, math.nan), form, refusal), np.full(draws, math.nan)
    precision, mean = np.full(rows.x.shape[1], RIDGE), np.zeros(rows.x.shape[1])
    if prior is not None:
        precision[0], mean[0] = prior.precision, prior.mean
    (fit,) = ridge_logistic(rows.x, rows.y, np.ones((1, len(rows.y))), precision=precision, mean=mean)
    drawn = _resampled(rows, precision, mean, fit, draws, seed)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return _result(rows, fit, (float(low), float(high)), form, _warning(rows, fit)), drawn


def length_controlled_l1(
    preference: ArrayLike, length_model: ArrayLike, length_baseline: ArrayLike, difficulty: ArrayLike | None = None
) -> LengthControlled:
    """AlpacaEval's own estimator without gamed rows: l1 penalty, strength by 5-fold cross-validation over prompts.

    Strengths are logspace(-4, 4, 10), the score is the soft log-loss, folds are prompt index mod 5 (theirs come from
    scikit-learn's GroupKFold; the estimate hardly depends on them). A point estimate: `ci95` is NaN.
    """
    rows = _rows(preference, length_model, length_baseline, difficulty)
    form, nothing = "lc_noreg_l1" if difficulty is not None else "lc_minimal_l1", (math.nan, math.nan)
    refusal = _refusal(rows)
    if refusal:
        return _result(rows, np.full(rows.x.shape[1], math.nan), nothing, form, refusal)
    fold = np.arange(len(rows.y)) % rows.n % 5
    strengths = np.logspace(-4, 4, 10)
    best = strengths[int(np.argmin(sum(_held_out_losses(rows, strengths, fold == left_out) for left_out in range(5))))]
    fit = l1_logistic(rows.x, rows.y, np.ones(len(rows.y)), float(best))
    return _result(rows, fit, nothing, form, _warning(rows, fit))


@dataclass(frozen=True, slots=True)
class LeaderboardWeights:
    """The fitted (ability theta, difficulty effect psi) of one model on AlpacaEval's leaderboard, against the common baseline."""

    ability: float
    difficulty_effect: float


def predicted_length_controlled(a: LeaderboardWeights, b: LeaderboardWeights, difficulty: ArrayLike) -> float:
    """Length-controlled win rate of a over b without new judgements: mean_i sigma((theta_a - theta_b) + (psi_a - psi_b) d_i).

    1/2 for a model against itself, and antisymmetric: the two directions sum to 1.
    """
    d = as_vector(difficulty, "difficulty")
    return float(expit((a.ability - b.ability) + (a.difficulty_effect - b.difficulty_effect) * d).mean())


def _rows(preference: ArrayLike, length_model: ArrayLike, length_baseline: ArrayLike, difficulty: ArrayLike | None) -> _Rows:
    y, model = _preference(preference), as_table(length_model, "length_model")
    baseline = as_table(length_baseline, "length_baseline")
    if len(baseline) == 1:
        baseline = np.repeat(baseline, len(model), axis=0)
    same_shape("length_controlled", preference=y, length_model=model, length_baseline=baseline)
    n, gap = y.shape[1], (baseline - model).ravel()
    spread = float(gap.std(ddof=1))
    z = gap / spread if spread > 0.0 else np.zeros_like(gap)
    columns = [np.tanh(z), np.ones_like(z)]
    if difficulty is not None:
        d = as_vector(difficulty, "difficulty")
        if len(d) != n:
            raise UserError(
                f"{len(d)} difficulties for {n} prompts", where="difficulty", fix="select the rows of the judged prompts"
            )
        columns.insert(1, np.tile(d, len(y)))
    z_mean = float(z.mean()) if spread > 0.0 else math.nan
    return _Rows(y.ravel(), model.ravel(), baseline.ravel(), np.stack(columns, axis=1), n, z_mean)


def _preference(values: ArrayLike) -> Array:
    y = as_table(values, "preference")
    if y.max() > 1.0:
        y = y - 1.0
    if y.min() < 0.0 or y.max() > 1.0:
        raise UserError("preferences are neither in [0, 1] nor in [1, 2]", where="preference")
    return y


def _refusal(rows: _Rows) -> str:
    if math.isnan(rows.z_mean):
        return "refused: every length difference is the same"
    if abs(rows.z_mean) > 2.0:
        return f"refused: the lengths hardly overlap (mean difference {-rows.z_mean:+.1f} standard deviations)"
    if np.ptp(rows.y) == 0.0:
        return "refused: every comparison has the same outcome"
    return ""


def _warning(rows: _Rows, fit: Array) -> str:
    """AlpacaEval's own alarm: the control moved the win rate further than length plausibly can."""
    raw, controlled = 100 * float(rows.y.mean()), 100 * _controlled(rows, fit)
    low, high = min(raw - raw / 4, raw - 10), max(raw + (100 - raw) / 4, raw + 10)
    return "" if low <= controlled <= high else f"length control moved the win rate far, from {raw:.1f} % to {controlled:.1f} %"


def _controlled(rows: _Rows, fit: Array) -> float:
    return float(expit(rows.x[:, 1:] @ fit[1:]).mean())


def _resampled(rows: _Rows, precision: Array, mean: Array, fit: Array, draws: int, seed: int) -> Array:
    """[draws]: prompts resampled (all rows of a prompt together), each draw with its own fit; the scale of z is kept."""
    counts = rng(seed, "length_controlled", rows.n).multinomial(rows.n, np.full(rows.n, 1 / rows.n), size=draws)
    weights = np.tile(counts.astype(float), (1, len(rows.y) // rows.n))
    fits = ridge_logistic(rows.x, rows.y, weights, precision=precision, mean=mean, start=fit)
    return (weights * expit(fits[:, 1:] @ rows.x[:, 1:].T)).sum(axis=1) / weights.sum(axis=1)


def _held_out_losses(rows: _Rows, strengths: Array, test: NDArray[np.bool_]) -> Array:
    """Mean soft log-loss on the `test` rows at each strength, every fit starting from the previous one; 0 without test rows."""
    losses, fit = np.zeros(len(strengths)), None
    if test.any():
        for i, strength in enumerate(strengths):
            fit = l1_logistic(rows.x[~test], rows.y[~test], np.ones(int((~test).sum())), float(strength), start=fit)
            score = rows.x[test] @ fit
            losses[i] = (np.logaddexp(0.0, score) - rows.y[test] * score).mean()
    return losses


def _result(rows: _Rows, fit: Array, interval: Interval, form: str, note: str) -> LengthControlled:
    return LengthControlled(
        estimate=_controlled(rows, fit),
        ci95=interval,
        win_rate=float(rows.y.mean()),
        length_effect=float(fit[0]),
        difficulty_effect=float(fit[1]) if len(fit) == 3 else math.nan,
        ability=float(fit[-1]),
        mean_length_model=float(rows.model.mean()),
        mean_length_baseline=float(rows.baseline.mean()),
        n=rows.n,
        form=form,
        note=note,
    )
