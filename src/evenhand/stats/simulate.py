"""What the intervals and verdicts promise, measured by simulation: `python -m evenhand.stats.simulate [OUT]` writes the page.

A study has 11 arms of k seeds that answer the same n prompts. On the logit scale
    x[arm, s, i] = eta + sd u[arm, s] + v[i] + w[arm, i] / 2,    u, v, w ~ N(0, 1),
and an outcome is a win with probability sigma(x), or a win, tie or loss as x plus logistic noise lies above 1, between, or below -1,
or the grade sigma(x + e), e ~ N(0, 1). eta makes the mean outcome over seeds and prompts the stated rate. All arms are alike, so
every verdict between two of them is false, and so is every verdict against one half at rate .5.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import expit

from evenhand.seeding import rng
from evenhand.stats.arrays import Array
from evenhand.stats.crossed import least_variance, variance_components
from evenhand.stats.intervals import EQUAL, Component, half_widths, score_limits, score_part
from evenhand.stats.mixed import mixed_win_rate
from evenhand.stats.tests import seeds_needed
from evenhand.stats.twoway import MIXED_FROM

SEEDS, PROMPTS, RATES, SEED_SDS, KINDS = (1, 2, 3, 5, 8), (20, 50, 128, 500), (0.5, 0.8, 0.97, 0.99), (0.0, 0.3, 1.0, 2.0), (
    "win/loss", "ties", "graded",
)  # fmt: skip
ARMS = (1, 3, 10)
PROMPT_SD, OWN_SD, CUT, GRADE_SD = 1.0, 0.5, 1.0, 1.0
GAPS = {"win/loss": 1.0, "ties": 0.5, "graded": 0.0}
LEAST, MOST = 0.93, 0.055
"""Coverage and family-wise error that a cell must keep."""
_X, _W = hermegauss(61)
_W = _W / _W.sum()


@dataclass(frozen=True, slots=True)
class Cell:
    """One design and world: k seeds, n prompts, the true mean outcome, the sd of a seed's effect in logits, the outcomes' kind."""

    k: int
    n: int
    rate: float
    seed_sd: float
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Shares of the studies. `rate`, `difference`: the interval holds the truth, of an arm's win rate and of two arms' difference.

    `two_way`: `rate` without the mixed model. `family[m]`: any false verdict among m arms against another arm; `against_even[m]`
    against one half (None unless the rate is one half). One seed: the truth is that of the checkpoints.
    """

    rate: float
    two_way: float
    difference: float
    family: dict[int, float]
    against_even: dict[int, float] | None
    studies: int


def measure(cell: Cell, studies: int, *, seed: int = 0, arms: Sequence[int] = ARMS, fits: int = 60) -> Measured:
    """Simulates a cell. The mixed model is fitted to at most `fits` of the studies whose two-way interval fails, and scaled up."""
    draw = rng(seed, "simulate", cell.k, cell.n, int(1000 * cell.rate), int(10 * cell.seed_sd), KINDS.index(cell.kind))
    size = max(1, min(studies, 3_000_000 // ((max(arms) + 1) * cell.k * cell.n)))
    parts = [_chunk(cell, min(size, studies - start), draw, arms) for start in range(0, studies, size)]
    failed = np.concatenate([p["failed"] for p in parts])[:fits]
    mean = lambda name: float(np.concatenate([p[name] for p in parts]).mean(axis=0))  # noqa: E731
    two_way, rescued = mean("rate"), 0.0
    if cell.k >= MIXED_FROM and cell.kind != "graded" and len(failed):
        rescued = float(np.mean([_holds(mixed_win_rate(y).interval(), cell.rate) for y in failed]))
    family = {m: mean(f"arms {m}") for m in arms}
    even = {m: mean(f"even {m}") for m in arms} if cell.rate == 0.5 else None
    covered = two_way + (1 - two_way) * rescued
    return Measured(
        rate=covered, two_way=two_way, difference=mean("difference"), family=family, against_even=even, studies=studies
    )


def _chunk(cell: Cell, studies: int, draw: np.random.Generator, arms: Sequence[int]) -> dict[str, Array]:
    y, truth = _outcomes(cell, studies, max(arms) + 1, draw)
    parts, share, low, high = _rates(y, cell, 0.95)
    held = (low[:, 0] <= truth[:, 0]) & (truth[:, 0] <= high[:, 0])
    found = {"rate": held, "failed": y[:, 0][~held]}
    d = y[:, 1:] - y[:, :1]
    estimate, per_seed = d.mean(axis=(2, 3)), d.mean(axis=3)
    reach = np.abs(d).max(axis=(2, 3))
    floor = least_variance(d.mean(axis=2), 1.0)
    imagined = 2.0 * np.where(reach > 0, reach, 1.0) ** 2 / (cell.n + 2) ** 2
    own = d.mean(axis=2).var(axis=2, ddof=1) / cell.n
    floor = replace(floor, variance=np.maximum(own, imagined))
    components = variance_components(d, GAPS[cell.kind])
    agreed = _agree(per_seed)
    for m in arms:
        half = np.maximum(half_widths(components, 1 - 0.05 / m), half_widths([floor], 1 - 0.05 / m))
        if m == min(arms):
            difference = truth[:, 1:] - truth[:, :1]
            half95 = np.maximum(half_widths(components), half_widths([floor]))
            found["difference"] = (np.abs(estimate - difference) <= half95)[:, 0]
        found[f"arms {m}"] = (agreed & (np.abs(estimate) > half))[:, :m].any(axis=1)
        if cell.rate == 0.5:
            _, _, low, high = _rates(y, cell, 1 - 0.05 / m)
            excluded = ((low > 0.5) | (high < 0.5)) & _agree(y.mean(axis=3) - 0.5)
            found[f"even {m}"] = excluded[:, 1 : m + 1].any(axis=1)
    return found


def _rates(y: Array, cell: Cell, level: float) -> tuple[tuple[Component, ...], Array, Array, Array]:
    """(parts, win rates, lower limits, upper limits), all [studies, arms]: `win_rate` of many tables."""
    share, score = y.mean(axis=(2, 3)), score_part(y.mean(axis=2))
    parts = variance_components(y, GAPS[cell.kind])
    quotient = half_widths([score], level) ** 2 + np.zeros_like(share)
    if cell.k > 1:
        room = share * (1 - share)
        both = half_widths(parts, level) ** 2 / np.where(room < EQUAL, 1.0, room)
        quotient = np.where(room < EQUAL, quotient, np.maximum(quotient, both))
    return parts, share, *score_limits(share, quotient)


def _outcomes(cell: Cell, studies: int, arms: int, draw: np.random.Generator) -> tuple[Array, Array]:
    """Outcomes [studies, arms, k, n] and the truth [studies, arms] that an interval is about."""
    eta = _centre(cell)
    normal = lambda *shape: draw.standard_normal((studies, *shape), dtype=np.float32)  # noqa: E731
    u = np.float32(cell.seed_sd) * normal(arms, cell.k, 1)
    x = np.float32(eta) + u + np.float32(PROMPT_SD) * normal(1, 1, cell.n) + np.float32(OWN_SD) * normal(arms, 1, cell.n)
    truth = np.full((studies, arms), cell.rate)
    if cell.k == 1:
        truth = _mean_outcome(cell.kind, eta + u[:, :, 0, 0].astype(float), float(np.hypot(PROMPT_SD, OWN_SD)))
    if cell.kind == "graded":
        return expit(x + np.float32(GRADE_SD) * normal(*x.shape[1:])), truth
    chance = draw.random(x.shape, dtype=np.float32)
    if cell.kind == "win/loss":
        return (chance < expit(x)).astype(np.float32), truth
    return np.float32(0.5) * ((chance < expit(x - np.float32(CUT))) + (chance < expit(x + np.float32(CUT))).astype(np.float32)), truth


def _centre(cell: Cell) -> float:
    """eta by bisection: the mean outcome over seeds and prompts is the cell's rate."""
    low, high, sd = -10.0, 60.0, float(np.sqrt(cell.seed_sd**2 + PROMPT_SD**2 + OWN_SD**2))
    for _ in range(80):
        middle = (low + high) / 2
        below = float(_mean_outcome(cell.kind, np.array(middle), sd)) < cell.rate
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def _mean_outcome(kind: str, centre: Array, sd: float) -> Array:
    """E of an outcome whose x ~ N(centre, sd^2)."""
    if kind == "graded":
        sd = float(np.hypot(sd, GRADE_SD))
    x = centre[..., None] + sd * _X
    inside = expit(x) if kind != "ties" else 0.5 * (expit(x - CUT) + expit(x + CUT))
    return np.asarray((inside * _W).sum(axis=-1))


def _agree(per_seed: Array) -> Array:
    """Whether so many seeds [..., k] have one sign as a verdict needs."""
    most = np.maximum((per_seed > 0).sum(axis=-1), (per_seed < 0).sum(axis=-1))
    return np.asarray(most >= seeds_needed(per_seed.shape[-1]))


def _holds(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def grid() -> Iterator[Cell]:
    """Every cell of the page."""
    for kind, k, n, rate, sd in product(KINDS, SEEDS, PROMPTS, RATES, SEED_SDS):
        yield Cell(k, n, rate, sd, kind)


def budget(cell: Cell, most: int = 4000, elements: float = 40e6) -> int:
    """Studies of a cell: fewer where a study is large."""
    return int(np.clip(elements / (11 * cell.k * cell.n), 1000, most))
