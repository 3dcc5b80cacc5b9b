"""Best-of-n from samples already drawn: unbiased estimates for every n, their intervals, and the bounds theory gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from evenhand.errors import UserError
from evenhand.stats.arrays import Array, as_table, same_shape
from evenhand.stats.intervals import Interval, t_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfN:
    """One point of a best-of-n curve: expected gold score of the proxy's favourite of `n` samples, and expected proxy reward.

    `ci95` is over prompts. `kl_bound` (nats) and `win_rate_bound` are the largest KL from, and win rate against, one sample.
    """

    n: int
    gold: float
    ci95: Interval
    reward: float
    kl_bound: float
    win_rate_bound: float


def best_of_n(rewards: ArrayLike, golds: ArrayLike) -> list[BestOfN]:
    """The best-of-n curve for n = 1..m from m scored samples per prompt: `rewards` (proxy) and `golds`, both [prompts, m].

    Unbiased: the mean over all C(m, n) subsets of the gold score of the sample with the highest reward,
    sum_i C(i-1, n-1)/C(m, n) gold_(i) with samples in ascending order of reward; ties share their weight, as a uniformly
    random choice among them would. n = 1 is the plain mean; n = m the favourite of all. Gao et al. 2023 (arXiv:2210.10760).

    >>> [round(p.gold, 4) for p in best_of_n([[1.0, 2.0, 3.0], [1.0, 1.0, 2.0]], [[0.0, 0.3, 0.9], [0.0, 1.0, 0.4]])]
    [0.4333, 0.5667, 0.65]
    """
    reward, gold = _ordered(rewards, golds)
    samples = reward.shape[1]
    return [_point(n, order_weights(samples, n), reward, gold) for n in range(1, samples + 1)]


def best_of_n_by_prompt(rewards: ArrayLike, golds: ArrayLike) -> Array:
    """What `best_of_n` takes the mean of: the expected gold score of the favourite of n, [prompts, m], n = 1..m.

    >>> best_of_n_by_prompt([[1.0, 2.0, 3.0]], [[0.0, 0.3, 0.9]]).round(4).tolist()
    [[0.4, 0.7, 0.9]]
    """
    _, gold = _ordered(rewards, golds)
    samples = gold.shape[1]
    return np.stack([gold @ order_weights(samples, n) for n in range(1, samples + 1)], axis=1)


def _ordered(rewards: ArrayLike, golds: ArrayLike) -> tuple[Array, Array]:
    """Rewards ascending in every row, and the gold scores in their order, ties averaged."""
    reward, gold = as_table(rewards, "best_of_n rewards", at_least=1), as_table(golds, "best_of_n golds", at_least=1)
    same_shape("best_of_n", rewards=reward, golds=gold)
    order = np.argsort(reward, axis=1, kind="stable")
    reward = np.take_along_axis(reward, order, axis=1)
    return reward, _tie_averaged(reward, np.take_along_axis(gold, order, axis=1))


def order_weights(samples: int, n: int) -> Array:
    """P(the i-th smallest of `samples` is the largest of a random subset of n) = C(i-1, n-1)/C(samples, n), [samples].

    >>> order_weights(4, 2).round(4).tolist()
    [0.0, 0.1667, 0.3333, 0.5]
    """
    if not 1 <= n <= samples:
        raise UserError(f"n = {n} of {samples} samples", where="order_weights", fix="draw at least n samples per prompt")
    i = np.arange(n, samples + 1, dtype=float)
    weights = np.zeros(samples)
    weights[n - 1 :] = np.exp(_log_choose(i - 1, n - 1) - _log_choose(np.array(float(samples)), n))
    return weights


def kl_bound(n: int) -> float:
    """Upper bound on KL(best-of-n || one sample) in nats: log n - (n - 1)/n; equality when rewards never tie.

    Beirami et al. 2024 (arXiv:2401.01879), theorem 3.1.

    >>> round(kl_bound(8), 4)
    1.2044
    """
    return math.log(n) - (n - 1) / n


def win_rate_bound(n: int) -> float:
    """Upper bound n/(n + 1) on the win rate (ties one half), by the selecting reward, of best-of-n against one sample."""
    return n / (n + 1)


def exact_best_of_n(probability: ArrayLike, reward: ArrayLike, n: int) -> Array:
    """The exact best-of-n distribution over outputs [m] with `probability` under the policy: q = F(r)^n - F(r-)^n.

    Tied outputs share that mass in proportion to their probability. KL(q || p) <= kl_bound(n).
    """
    p, r = np.asarray(probability, dtype=float), np.asarray(reward, dtype=float)
    if p.shape != r.shape or p.ndim != 1 or p.min() < 0.0 or not math.isclose(p.sum(), 1.0, abs_tol=1e-9):
        raise UserError("needs one reward per output and probabilities that sum to 1", where="exact_best_of_n")
    up_to = np.array([p[r <= x].sum() for x in r])
    below = np.array([p[r < x].sum() for x in r])
    level = up_to - below
    return (up_to**n - below**n) * np.divide(p, level, out=np.zeros_like(p), where=level > 0)


def _point(n: int, weights: Array, reward: Array, gold: Array) -> BestOfN:
    per_prompt = gold @ weights
    interval = t_interval(per_prompt) if len(per_prompt) > 1 else (math.nan, math.nan)
    return BestOfN(
        n=n,
        gold=float(per_prompt.mean()),
        ci95=interval,
        reward=float((reward @ weights).mean()),
        kl_bound=kl_bound(n),
        win_rate_bound=win_rate_bound(n),
    )


def _tie_averaged(reward: Array, gold: Array) -> Array:
    """Gold with each run of equal rewards (rows ascending) replaced by its mean: a random choice among ties."""
    rows, columns = reward.shape
    new_run = np.ones((rows, columns), dtype=bool)
    new_run[:, 1:] = reward[:, 1:] != reward[:, :-1]
    run = np.cumsum(new_run.ravel()) - 1
    return (np.bincount(run, weights=gold.ravel()) / np.bincount(run))[run].reshape(rows, columns)


def _log_choose(n: Array, k: int) -> Array:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
