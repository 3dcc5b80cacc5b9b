"""Bradley-Terry ratings of many policies from pairwise outcomes, with intervals over prompts, position and style effects.

P(i beats j) = sigma(theta_i - theta_j + gamma position + beta^T style). One joint fit of all battles; never online Elo, whose
result depends on their order.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.stats.arrays import Array, as_vector
from evenhand.stats.intervals import Interval
from evenhand.stats.logistic import ridge_logistic

ELO = 400.0 / math.log(10.0)
"""Elo points per logit."""

RIDGE = 1e-3
"""Precision of the zero-centred prior: keeps an unbeaten player finite, and fixes sum theta = 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """One player: `theta` in logits (mean zero over players), `elo` with its prompt-bootstrap interval, sandwich `elo_se`.

    `rank` is (best, worst) rank that the intervals of theta allow. `battles` counts its comparisons.
    """

    name: Hashable
    theta: float
    theta_ci95: Interval
    elo: float
    elo_ci95: Interval
    elo_se: float
    rank: tuple[int, int]
    battles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """All players, best first; the advantage (logits) of the answer shown first, and the style effects (logits per sd)."""

    players: tuple[Rating, ...]
    position_effect: float
    style_effects: tuple[float, ...]
    anchor: Hashable | None

    def __getitem__(self, name: Hashable) -> Rating:
        for player in self.players:
            if player.name == name:
                return player
        raise UserError(f"no player named {name!r}", where="ratings")

    def win_probability(self, a: Hashable, b: Hashable) -> float:
        """P(a beats b) at equal style and without a position effect."""
        return float(expit(self[a].theta - self[b].theta))


@dataclass(frozen=True, slots=True)
class _Battles:
    """Design matrix [m, players + extras], outcomes [m], prompt index [m], and the player names."""

    x: Array
    y: Array
    prompt: NDArray[np.intp]
    names: list[Hashable]


def bradley_terry_ratings(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    outcome: ArrayLike,
    *,
    prompt: Sequence[Hashable] | None = None,
    position: ArrayLike | None = None,
    style: ArrayLike | None = None,
    anchor: Hashable | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Ratings:
    """Ratings from battles `first[b]` against `second[b]` with `outcome[b]` in [0, 1] (1: first wins, 0.5: tie, soft allowed).

    Maximises sum y log sigma(eta) + (1 - y) log sigma(-eta) - RIDGE/2 sum theta^2. `prompt` names the prompt of each battle:
    all its battles are resampled together (default: every battle its own prompt). `position` is +1 where `first` was shown
    first, -1 where second, 0 if unknown. `style` [m, f] are style gaps first minus second; they are scaled by their sd but
    never centred, so that theta speaks of equal style. Elo = 1000 + 400 (theta - theta_anchor)/ln 10.
    UserError when the players fall into groups that never met. Two players: the logit of the win rate (up to the ridge).

    >>> r = bradley_terry_ratings("aab", "bbc", [1.0, 0.5, 0.5], anchor="b", draws=10)
    >>> [p.name for p in r.players], r["b"].elo, round(r.win_probability("a", "b"), 2)
    (['a', 'c', 'b'], 1000.0, 0.75)
    """
    battles = _battles(first, second, outcome, prompt, position, style)
    players = len(battles.names)
    if anchor is not None and anchor not in battles.names:
        raise UserError(f"anchor {anchor!r} is not a player", where="bradley_terry_ratings")
    precision = np.full(battles.x.shape[1], RIDGE)
    (fit,) = ridge_logistic(battles.x, battles.y, np.ones((1, len(battles.y))), precision=precision)
    samples = _resample(battles, precision, draws, seed)[:, :players]
    covariance = sandwich(battles.x, battles.y, battles.prompt, fit, precision)[:players, :players]
    extras = [float(v) for v in fit[players:]]
    gamma = extras.pop(0) if position is not None else math.nan
    table = _table(battles, fit[:players], samples, covariance, anchor)
    return Ratings(players=table, position_effect=gamma, style_effects=tuple(extras), anchor=anchor)


def sandwich(x: Array, y: Array, cluster: NDArray[np.intp], fit: Array, precision: Array) -> Array:
    """Cluster-robust covariance H^-1 (G/(G-1) sum_g s_g s_g^T) H^-1 of a ridge logistic fit; s_g sums a prompt's scores."""
    p = expit(x @ fit)
    hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag(precision)
    groups = int(cluster.max()) + 1
    scores = np.zeros((groups, x.shape[1]))
    np.add.at(scores, cluster, x * (y - p)[:, None])
    inverse = np.linalg.inv(hessian)
    return inverse @ (scores.T @ scores) @ inverse * (groups / max(groups - 1, 1))


def rank_intervals(intervals: Sequence[Interval]) -> list[tuple[int, int]]:
    """Best and worst rank each player can have: 1 + #{others surely above} .. K - #{others surely below}.

    >>> rank_intervals([(2.0, 3.0), (0.0, 1.0), (0.5, 2.5)])
    [(1, 2), (2, 3), (1, 3)]
    """
    k = len(intervals)
    return [(1 + sum(lo > high for lo, _ in intervals), k - sum(hi < low for _, hi in intervals)) for low, high in intervals]


def _battles(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    outcome: ArrayLike,
    prompt: Sequence[Hashable] | None,
    position: ArrayLike | None,
    style: ArrayLike | None,
) -> _Battles:
    y = as_vector(outcome, "bradley_terry_ratings outcome")
    m = len(y)
    if y.min() < 0.0 or y.max() > 1.0:
        raise UserError("outcomes must lie in [0, 1]", where="bradley_terry_ratings")
    names, one, two = player_indices(first, second, m)
    players = np.zeros((m, len(names)))
    players[np.arange(m), one] = 1.0
    players[np.arange(m), two] = -1.0
    columns = [players]
    if position is not None:
        columns.append(as_vector(position, "position").reshape(m, 1))
    if style is not None:
        columns.append(_scaled(np.asarray(style, dtype=float).reshape(m, -1)))
    prompts: dict[Hashable, int] = {}
    index = np.arange(m) if prompt is None else np.array([prompts.setdefault(p, len(prompts)) for p in prompt])
    if len(index) != m:
        raise UserError(f"{len(index)} prompts for {m} battles", where="bradley_terry_ratings")
    return _Battles(np.concatenate(columns, axis=1), y, index, names)


def player_indices(
    first: Sequence[Hashable], second: Sequence[Hashable], m: int
) -> tuple[list[Hashable], NDArray[np.intp], NDArray[np.intp]]:
    """Player names in order of appearance and the two index vectors [m]; UserError unless every player can be compared."""
    if len(first) != m or len(second) != m:
        raise UserError(f"{len(first)} first, {len(second)} second players for {m} outcomes", where="battles")
    if any(a == b for a, b in zip(first, second, strict=True)):
        raise UserError("a player meets itself", where="battles")
    known: dict[Hashable, int] = {}
    for a, b in zip(first, second, strict=True):
        known.setdefault(a, len(known))
        known.setdefault(b, len(known))
    one, two = np.array([known[a] for a in first]), np.array([known[b] for b in second])
    names = list(known)
    reached, edge = {0}, list(zip(one.tolist(), two.tolist(), strict=True))
    while True:
        new = {j for pair in edge if reached.intersection(pair) for j in pair} - reached
        if not new:
            break
        reached |= new
    if len(reached) < len(names):
        apart = [names[i] for i in range(len(names)) if i not in reached]
        why = "ratings of players without a chain of battles between them cannot be compared"
        raise UserError(f"{apart} never met the others", where="battles", why=why, fix="judge them against a common baseline")
    return names, one, two


def _table(battles: _Battles, theta: Array, samples: Array, covariance: Array, anchor: Hashable | None) -> tuple[Rating, ...]:
    """One `Rating` per player, best first; Elo and its errors are relative to the anchor, ranks are not."""
    relative = np.eye(len(theta))
    if anchor is not None:
        relative[:, battles.names.index(anchor)] -= 1.0
    low, high = np.quantile(samples, (0.025, 0.975), axis=0)
    elo_low, elo_high = 1000.0 + ELO * np.quantile(samples @ relative.T, (0.025, 0.975), axis=0)
    elo, variance = 1000.0 + ELO * (relative @ theta), np.diag(relative @ covariance @ relative.T)
    ranks = rank_intervals(list(zip(low.tolist(), high.tolist(), strict=True)))
    counts = np.abs(battles.x[:, : len(theta)]).sum(axis=0)
    table = [
        Rating(
            name=name,
            theta=float(theta[i]),
            theta_ci95=(float(low[i]), float(high[i])),
            elo=float(elo[i]),
            elo_ci95=(float(elo_low[i]), float(elo_high[i])),
            elo_se=ELO * math.sqrt(max(float(variance[i]), 0.0)),
            rank=ranks[i],
            battles=int(counts[i]),
        )
        for i, name in enumerate(battles.names)
    ]
    return tuple(sorted(table, key=lambda rating: -rating.theta))


def _resample(battles: _Battles, precision: Array, draws: int, seed: int) -> Array:
    """Fits [draws, p] on resampled prompts, in chunks that bound the memory."""
    prompts = int(battles.prompt.max()) + 1
    draw, fits = rng(seed, "bradley_terry_ratings", prompts), []
    for start in range(0, draws, 100):
        counts = draw.multinomial(prompts, np.full(prompts, 1 / prompts), size=min(100, draws - start)).astype(float)
        fits.append(ridge_logistic(battles.x, battles.y, counts[:, battles.prompt], precision=precision))
    return np.concatenate(fits)


def _scaled(style: Array) -> Array:
    spread = style.std(axis=0, ddof=1)
    return style / np.where(spread > 0.0, spread, 1.0)
