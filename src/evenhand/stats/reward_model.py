"""How good a reward model is on preference pairs: accuracy, log-loss, calibration, and how much of it is length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from evenhand.errors import UserError
from evenhand.stats.arrays import Array, as_vector, same_shape
from evenhand.stats.intervals import Interval, soft_wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class PairMetrics:
    """Reward-model quality on n pairs. `accuracy` counts equal scores as one half; `log_loss` in nats; margins in score units.

    `ece` is the expected calibration error of sigma(margin); `length_correlation` the Pearson correlation of score difference
    and length difference over pairs (NaN without lengths, or when one of them does not vary).
    """

    accuracy: float
    ci95: Interval
    ties: float
    log_loss: float
    mean_margin: float
    ece: float
    length_correlation: float
    n: int


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a calibration curve or a length bucket: its range, count, mean prediction and observed share."""

    low: float
    high: float
    n: int
    predicted: float
    observed: float


def pair_metrics(
    chosen: ArrayLike, rejected: ArrayLike, length_chosen: ArrayLike | None = None, length_rejected: ArrayLike | None = None
) -> PairMetrics:
    """Metrics of scores of chosen and rejected answers [n]; lengths [n] in any one unit are optional.

    P(chosen preferred) = sigma(chosen - rejected), the Bradley-Terry model; log_loss = mean -log of it.

    >>> m = pair_metrics([1.0, 0.0, 2.0], [0.0, 0.0, 3.0])
    >>> m.accuracy, m.ties == 1 / 3, round(m.log_loss, 4)
    (0.5, True, 0.7732)
    """
    margin = _margins(chosen, rejected)
    correct = _correct(margin)
    correlation = math.nan
    if length_chosen is not None and length_rejected is not None:
        gap = as_vector(length_chosen, "length_chosen") - as_vector(length_rejected, "length_rejected")
        same_shape("pair_metrics", margin=margin, length=gap)
        correlation = correlation_or_nan(margin, gap)
    return PairMetrics(
        accuracy=float(correct.mean()),
        ci95=soft_wilson(correct),
        ties=float((margin == 0).mean()),
        log_loss=float(np.logaddexp(0.0, -margin).mean()),
        mean_margin=float(margin.mean()),
        ece=expected_calibration_error(margin),
        length_correlation=correlation,
        n=len(margin),
    )


def expected_calibration_error(margin: ArrayLike, bins: int = 10) -> float:
    """ECE of the predicted preference: sum over bins of share x |mean confidence - accuracy|, confidence sigma(|margin|).

    The predicted winner's confidence lies in [1/2, 1], cut into `bins` equal bins; an equal score is right half the time.
    Guo et al. 2017, eq. 3.
    """
    m = as_vector(margin, "expected_calibration_error")
    confidence, correct = expit(np.abs(m)), _correct(m)
    index = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(m))


def calibration(margin: ArrayLike, width: float = 0.5, top: float = 0.995) -> list[Bin]:
    """Accuracy against sigma(|margin|) in bins of |margin| of `width`, up to its `top` quantile; the last bin is open above.

    Huang et al. 2024 (the N+ details of RLHF), calibration figure. Empty bins are left out.
    """
    m = as_vector(margin, "calibration")
    size = np.abs(m)
    predicted, correct = expit(size), _correct(m)
    last = max(0, math.ceil(float(np.quantile(size, top)) / width) - 1)
    index = np.minimum((size / width).astype(int), last)
    edges = [*(i * width for i in range(last + 1)), math.inf]
    return [_bin(edges[i], edges[i + 1], index == i, predicted, correct) for i in np.unique(index)]


def agreement_by_length(
    chosen: ArrayLike, rejected: ArrayLike, length_chosen: ArrayLike, length_rejected: ArrayLike
) -> dict[str, Bin]:
    """Accuracy where the chosen answer is shorter, equally long, or longer; `low`, `high` bound the length difference there.

    A reward model that only likes length is right on `longer` and wrong on `shorter`. Empty buckets are left out.
    """
    margin = _margins(chosen, rejected)
    gap = as_vector(length_chosen, "length_chosen") - as_vector(length_rejected, "length_rejected")
    same_shape("agreement_by_length", margin=margin, length=gap)
    predicted, correct = expit(margin), _correct(margin)
    buckets = {"shorter": gap < 0, "equal": gap == 0, "longer": gap > 0}
    return {
        name: _bin(float(gap[inside].min()), float(gap[inside].max()), inside, predicted, correct)
        for name, inside in buckets.items()
        if inside.any()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthBias:
    """Within-prompt relation of reward and length over prompts with varying rewards and lengths.

    `correlations` per used prompt, with its `mean_lengths`; `mean_correlation` is their Fisher-z average;
    `share_above` the share above 0.3; `slope` of the centred reward per 100 length units; `skipped` prompts without spread.
    """

    correlations: tuple[float, ...]
    mean_lengths: tuple[float, ...]
    mean_correlation: float
    share_above: float
    slope: float
    skipped: int


def length_bias(rewards: Sequence[ArrayLike], lengths: Sequence[ArrayLike]) -> LengthBias:
    """Per prompt rho_x = Pearson(reward, length) over its samples, and their summary; ragged prompts are welcome.

    Comparing within a prompt removes prompts that ask for length. RLHF Workflow (Dong et al. 2024), length-bias heat map.
    """
    if len(rewards) != len(lengths):
        raise UserError(f"{len(rewards)} prompts of rewards, {len(lengths)} of lengths", where="length_bias")
    rho, means, above, below = [], [], 0.0, 0.0
    for reward, length in zip(rewards, lengths, strict=True):
        r, x = as_vector(reward, "length_bias rewards"), as_vector(length, "length_bias lengths")
        same_shape("length_bias", rewards=r, lengths=x)
        r_c, x_c = r - r.mean(), x - x.mean()
        above, below = above + float(r_c @ x_c), below + float(x_c @ x_c)
        value = correlation_or_nan(r, x)
        if not math.isnan(value):
            rho.append(value)
            means.append(float(x.mean()))
    z = np.arctanh(np.clip(rho, -1 + 1e-9, 1 - 1e-9)) if rho else np.array([math.nan])
    return LengthBias(
        correlations=tuple(rho),
        mean_lengths=tuple(means),
        mean_correlation=float(np.tanh(z.mean())),
        share_above=float(np.mean(np.array(rho) > 0.3)) if rho else math.nan,
        slope=100.0 * above / below if below > 0.0 else math.nan,
        skipped=len(rewards) - len(rho),
    )


def length_heatmap(bias: LengthBias, rows: int = 20, columns: int = 10) -> tuple[Array, Array, Array]:
    """Prompt counts [rows, columns] by correlation (equal bins of [-1, 1]) and mean length (quantile bins), with both edges."""
    if not bias.correlations:
        raise UserError("no prompt has varying rewards and lengths", where="length_heatmap")
    lengths = np.asarray(bias.mean_lengths)
    across = np.unique(np.quantile(lengths, np.linspace(0, 1, columns + 1)))
    if len(across) == 1:
        across = np.array([across[0] - 0.5, across[0] + 0.5])
    down = np.linspace(-1.0, 1.0, rows + 1)
    counts, _, _ = np.histogram2d(np.clip(bias.correlations, -1.0, 1.0), lengths, bins=(down, across))
    return counts, down, across


def correlation_or_nan(x: Array, y: Array) -> float:
    """Pearson correlation; NaN when one of the two does not vary."""
    if len(x) < 2 or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _margins(chosen: ArrayLike, rejected: ArrayLike) -> Array:
    left, right = as_vector(chosen, "chosen"), as_vector(rejected, "rejected")
    same_shape("reward model scores", chosen=left, rejected=right)
    return left - right


def _correct(margin: Array) -> Array:
    return (margin > 0) + 0.5 * (margin == 0)


def _bin(low: float, high: float, inside: Array, predicted: Array, correct: Array) -> Bin:
    return Bin(low, high, int(inside.sum()), float(predicted[inside].mean()), float(correct[inside].mean()))
