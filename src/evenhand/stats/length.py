"""Length-controlled win rates: what the win rate would be if both answers were equally long.

The model is P(model wins on i) = sigma(phi tanh(z_i) + psi d_i + theta), with z_i = (len_baseline - len_model)_i / sd over the
rows (not centred) and d_i an optional fixed difficulty of the prompt. The length-controlled win rate sets the length term to
zero: LC = mean_i sigma(psi d_i + theta). phi < 0 means that longer answers win. Dubois et al. 2024 (arXiv:2404.04475), eq. 2.

Without difficulties the fit takes prompts that are hard, and answered shortly, for the effect of length, and is further from the
truth than the raw rate. So it then holds phi near 0 (`NEUTRAL`), which corrects less but in the right direction.

AlpacaEval's published number also trains on its baseline's verbose and concise answers (`gamed`); without them this is their
`length_controlled_noreg`, called `lc_noreg` here, and within about 1.5 points of theirs on average.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.stats.arrays import Array, as_table, as_vector, same_shape
from evenhand.stats.intervals import Interval
from evenhand.stats.logistic import l1_logistic, ridge_logistic, separated

RIDGE = 1e-3
"""Precision of the zero-centred prior that keeps separable data finite; it moved no LC by more than 0.01 points at n = 805."""


@dataclass(frozen=True, slots=True)
class LengthPrior:
    """A Gaussian prior on the length effect phi: penalty 1/2 precision (phi - mean)^2, `precision` for `PRIOR_ROWS` comparisons.

    It grows with the number of comparisons, since what it guards against is no chance error: prompts that differ in difficulty.
    """

    mean: float
    precision: float


PRIOR_ROWS = 805
"""Comparisons that a prior's precision is stated for: AlpacaEval's."""
NEUTRAL = LengthPrior(mean=0.0, precision=15.0)
"""The default without difficulties: towards no effect of length, for any judge. On public models 1.1 points from the
leaderboard's number on average, where the raw rate is 4.5 off and no prior 7.4; unbiased for a judge that ignores length."""
NO_PRIOR = LengthPrior(mean=0.0, precision=0.0)
"""The plain fit, AlpacaEval's `length_controlled_minimal`."""
GPT4_CLASS_JUDGE = LengthPrior(mean=-1.6, precision=15.0)
"""For judges of the GPT-4 class, beside difficulties: AlpacaEval's fitted phi (-1.58, -1.64) and what its 161 effective gamed
rows tell. It pulls a judge that does not care about length by 4 points, so it is no default."""


@dataclass(frozen=True, slots=True)
class Gamed:
    """The baseline asked to be verbose, or concise, judged against itself on the same prompts: `preference`, lengths [n].

    Such a pair differs in length alone, which ties phi (and psi) to what length does by itself. AlpacaEval weights a row 0.1.
    """

    preference: ArrayLike
    length_model: ArrayLike
    length_baseline: ArrayLike
    weight: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthControlled:
    """A length-controlled win rate `estimate` in [0, 1]; NaN with the reason in `note` where the data cannot support one.

    `ci95` comes from resampling prompts and refitting; it speaks of these checkpoints only (`scope`). `length_effect` phi,
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
    scope: str = "prompts"


FORMS = {
    "lc_noreg": "prompt difficulty known",
    "lc_minimal": "no prompt difficulty and nothing in its place: often further from the truth than the raw rate",
    "lc_shrunk": "no prompt difficulty: the effect of length is held near none",
    "gamed": "with the baseline's own verbose and concise answers",
    "prior": "a given prior on the effect of length",
    "l1": "AlpacaEval's l1 fit",
}


def form_meaning(form: str) -> str:
    """What a form's name stands for, in words.

    >>> form_meaning("lc_noreg_gamed_l1")
    "prompt difficulty known; with the baseline's own verbose and concise answers; AlpacaEval's l1 fit"
    """
    base, *more = form.removeprefix("lc_").split("_")
    return "; ".join(FORMS[name] for name in (f"lc_{base}", *more))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Flattened comparisons: outcome, lengths, features [m, 2 or 3] (tanh z, difficulty, 1), and the prompt count n (m = k n).

    `gamed_x` [g, 2 or 3] (last feature 0), `gamed_y`, `gamed_weight`: rows that are fitted beside them, g a multiple of n.
    """

    y: Array
    model: Array
    baseline: Array
    x: Array
    n: int
    z_mean: float
    gamed_x: Array
    gamed_y: Array
    gamed_weight: Array

    @property
    def features(self) -> Array:
        return np.concatenate([self.x, self.gamed_x])

    @property
    def targets(self) -> Array:
        return np.concatenate([self.y, self.gamed_y])

    def weights(self, counts: Array) -> Array:
        """[B, m + g] from how often each prompt counts [B, n]."""
        gamed = np.tile(counts, (1, len(self.gamed_y) // self.n)) * self.gamed_weight
        return np.concatenate([np.tile(counts, (1, len(self.y) // self.n)), gamed], axis=1)


def length_controlled(
    preference: ArrayLike,
    length_model: ArrayLike,
    length_baseline: ArrayLike,
    difficulty: ArrayLike | None = None,
    *,
    prior: LengthPrior | None = None,
    gamed: Sequence[Gamed] = (),
    draws: int = 1000,
    seed: int = 0,
) -> LengthControlled:
    """The length-controlled win rate with a prompt-bootstrap interval; `form` says how it was fitted (`form_meaning`).

    `preference` [n] or [seeds, n]: probability that the model beats the baseline in [0, 1], or AlpacaEval's coding in [1, 2]
    (recognised by values above 1); lengths of the same shape in one unit (AlpacaEval: characters), the baseline's may be [n];
    `difficulty` [n]. `prior` shrinks phi towards a known judge's (use only for a judge it was measured on); without it, none
    where difficulties or gamed rows are known (`lc_noreg`), else `NEUTRAL` (`lc_shrunk`); `NO_PRIOR` gives `lc_minimal`.
    Refuses (NaN) when all length gaps are equal, |mean z| > 2 (no common support), all outcomes are equal, or the features
    separate wins from losses, so that no effect of length is too large.
    Equals the raw win rate in expectation when outcomes do not depend on length.

    >>> y, gap = [1, 1, 1, 0, 0, 0, 1, 0], np.array([90, 80, 70, -90, -80, -70, -60, 60])
    >>> lc = length_controlled(y, 300 + gap, [300] * 8, draws=50)
    >>> lc.win_rate, round(lc.estimate, 2), lc.length_effect < 0
    (0.5, 0.5, True)
    """
    return length_controlled_draws(
        preference, length_model, length_baseline, difficulty, prior=prior, gamed=gamed, draws=draws, seed=seed
    )[0]


def length_controlled_draws(
    preference: ArrayLike,
    length_model: ArrayLike,
    length_baseline: ArrayLike,
    difficulty: ArrayLike | None = None,
    *,
    prior: LengthPrior | None = None,
    gamed: Sequence[Gamed] = (),
    draws: int = 1000,
    seed: int = 0,
) -> tuple[LengthControlled, Array]:
    """`length_controlled`, and [draws] its estimate on the resampled prompts behind its interval (NaN where it refuses).

    The draws depend on `seed` and the number of prompts alone: those of two policies on the same prompts are paired, so the
    spread of their differences is that of the difference. Arguments as in `length_controlled`, which says what it refuses.
    """
    rows = _rows(preference, length_model, length_baseline, difficulty, gamed)
    form, used = _form(difficulty is not None, bool(gamed), prior)
    refusal = _refusal(rows)
    if refusal:
        unknown = np.full(rows.x.shape[1], math.nan)
        return _result(rows, unknown, (math.nan, math.nan), form, refusal), np.full(draws, math.nan)
    precision, mean = np.full(rows.x.shape[1], RIDGE), np.zeros(rows.x.shape[1])
    if used.precision > 0.0:
        precision[0], mean[0] = used.precision * len(rows.y) / PRIOR_ROWS, used.mean
    ones = rows.weights(np.ones((1, rows.n)))
    (fit,) = ridge_logistic(rows.features, rows.targets, ones, precision=precision, mean=mean)
    drawn = _resampled(rows, precision, mean, fit, draws, seed)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return _result(rows, fit, (float(low), float(high)), form, _warning(rows, fit)), drawn


def _form(difficulty: bool, gamed: bool, prior: LengthPrior | None) -> tuple[str, LengthPrior]:
    """The name of a fit and the prior it uses."""
    used = prior if prior is not None else (NO_PRIOR if difficulty or gamed else NEUTRAL)
    form = "lc_noreg" if difficulty else "lc_shrunk" if used == NEUTRAL else "lc_minimal"
    given = prior is not None and prior not in (NO_PRIOR, NEUTRAL)
    return form + "_gamed" * gamed + "_prior" * given, used


def length_controlled_l1(
    preference: ArrayLike,
    length_model: ArrayLike,
    length_baseline: ArrayLike,
    difficulty: ArrayLike | None = None,
    *,
    gamed: Sequence[Gamed] = (),
) -> LengthControlled:
    """AlpacaEval's own estimator: l1 penalty, strength by 5-fold cross-validation over prompts.

    With `gamed` (and their difficulty) it is their regularised form, the one that the leaderboard shows.

    Strengths are logspace(-4, 4, 10), the score is the soft log-loss, folds are prompt index mod 5 (theirs come from
    scikit-learn's GroupKFold; the estimate hardly depends on them). A point estimate: `ci95` is NaN. Refuses (NaN) what
    `length_controlled` refuses, and rows of which some folds are separable, so that their fit does not settle.
    """
    rows, nothing = _rows(preference, length_model, length_baseline, difficulty, gamed), (math.nan, math.nan)
    form = ("lc_noreg" if difficulty is not None else "lc_minimal") + "_gamed" * bool(gamed) + "_l1"
    unknown = np.full(rows.x.shape[1], math.nan)
    if refusal := _refusal(rows):
        return _result(rows, unknown, nothing, form, refusal)
    fold = np.arange(len(rows.targets)) % rows.n % 5
    strengths = np.logspace(-4, 4, 10)
    try:
        best = strengths[int(np.argmin(sum(_held_out_losses(rows, strengths, fold == left_out) for left_out in range(5))))]
        fit = l1_logistic(rows.features, rows.targets, rows.weights(np.ones((1, rows.n)))[0], float(best))
    except UserError as error:
        return _result(rows, unknown, nothing, form, f"refused: {error.what}")
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


def _rows(
    preference: ArrayLike,
    length_model: ArrayLike,
    length_baseline: ArrayLike,
    difficulty: ArrayLike | None,
    gamed: Sequence[Gamed],
) -> _Rows:
    y, model, baseline = _comparisons(preference, length_model, length_baseline, "length_controlled")
    n = y.shape[1]
    d = None if difficulty is None else as_vector(difficulty, "difficulty")
    if d is not None and len(d) != n:
        raise UserError(f"{len(d)} difficulties for {n} prompts", where="difficulty", fix="select the rows of the judged prompts")
    z = _scaled_gap(model, baseline)
    more = [_gamed_rows(g, n, d) for g in gamed]
    width = 2 + (d is not None)
    empty = (np.empty((0, width)), np.empty(0), np.empty(0))
    gamed_x, gamed_y, weight = (np.concatenate(part) for part in zip(empty, *more, strict=True))
    x = _features(z, d, 1.0)
    return _Rows(y.ravel(), model.ravel(), baseline.ravel(), x, n, float(z.mean()), gamed_x, gamed_y, weight)


def _comparisons(
    preference: ArrayLike, length_model: ArrayLike, length_baseline: ArrayLike, where: str
) -> tuple[Array, Array, Array]:
    y, model, baseline = (
        _preference(preference),
        as_table(length_model, "length_model"),
        as_table(length_baseline, "length_baseline"),
    )
    if len(baseline) == 1:
        baseline = np.repeat(baseline, len(model), axis=0)
    same_shape(where, preference=y, length_model=model, length_baseline=baseline)
    return y, model, baseline


def _scaled_gap(model: Array, baseline: Array) -> Array:
    """z [k, n]; NaN where every gap is the same."""
    gap = baseline - model
    spread = float(gap.std(ddof=1))
    return gap / spread if spread > 0.0 else np.full_like(gap, math.nan)


def _features(z: Array, difficulty: Array | None, own: float) -> Array:
    """[m, 2 or 3]: tanh z, the difficulty, and `own`, 1 for the model's rows and 0 for gamed ones."""
    columns = [np.tanh(z.ravel()), np.full(z.size, own)]
    if difficulty is not None:
        columns.insert(1, np.tile(difficulty, len(z)))
    return np.stack(columns, axis=1)


def _gamed_rows(gamed: Gamed, n: int, difficulty: Array | None) -> tuple[Array, Array, Array]:
    y, model, baseline = _comparisons(gamed.preference, gamed.length_model, gamed.length_baseline, "gamed")
    if y.shape[1] != n:
        raise UserError(f"{y.shape[1]} gamed rows for {n} prompts", where="gamed", fix="give them on the judged prompts")
    z = _scaled_gap(model, baseline)
    if np.isnan(z).any():
        raise UserError("every length difference is the same", where="gamed", fix="give verbose or concise answers")
    return _features(z, difficulty, 0.0), y.ravel(), np.full(y.size, gamed.weight)


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
    if separated(rows.x, rows.y):
        return "refused: the lengths alone tell wins from losses, so the effect of length has no estimate"
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
    weights = rows.weights(_resampled_prompts(rows.n, draws, seed))
    fits = ridge_logistic(rows.features, rows.targets, weights, precision=precision, mean=mean, start=fit)
    own = weights[:, : len(rows.y)]
    return (own * expit(fits[:, 1:] @ rows.x[:, 1:].T)).sum(axis=1) / own.sum(axis=1)


@functools.lru_cache(maxsize=4)
def _resampled_prompts(n: int, draws: int, seed: int) -> Array:
    """[draws, n]: how often each prompt is drawn; the same for every policy, so they are drawn once."""
    return rng(seed, "length_controlled", n).multinomial(n, np.full(n, 1 / n), size=draws).astype(float)


def _held_out_losses(rows: _Rows, strengths: Array, test: NDArray[np.bool_]) -> Array:
    """Mean soft log-loss on the `test` rows at each strength, every fit starting from the previous one; 0 without test rows."""
    losses, fit = np.zeros(len(strengths)), None
    x, y, weight = rows.features, rows.targets, rows.weights(np.ones((1, rows.n)))[0]
    if test.any():
        for i, strength in enumerate(strengths):
            fit = l1_logistic(x[~test], y[~test], weight[~test], float(strength), start=fit)
            score = x[test] @ fit
            losses[i] = np.average(np.logaddexp(0.0, score) - y[test] * score, weights=weight[test])
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
