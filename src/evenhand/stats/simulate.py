"""What the intervals and verdicts promise, measured by simulation: `python -m evenhand.stats.simulate [OUT]` writes the page.

A study has 11 arms of k seeds that answer the same n prompts. On the logit scale
    x[arm, s, i] = eta + sd u[arm, s] + v[i] + w[arm, i] / 2,    u, v, w ~ N(0, 1),
and an outcome is a win with probability sigma(x), or a win, tie or loss as x plus logistic noise lies above 1, between, or
below -1, or the grade sigma(x + e), e ~ N(0, 1). eta makes the mean outcome over seeds and prompts the stated rate. All arms are
alike, so every verdict between two of them is false, and so is every verdict against one half at rate .5.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy.special import expit

from evenhand.seeding import rng
from evenhand.stats.arrays import Array
from evenhand.stats.crossed import Spread, least_variance, spread, variance_components
from evenhand.stats.intervals import EQUAL, half_widths, score_limits, score_part, sign_p
from evenhand.stats.mixed import mixed_win_rate
from evenhand.stats.planning import power
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
SETTLED = 10_000
AHEAD = (0.5, 1.0, 2.0)
"""Logits by which the better of two arms is ahead where power is measured."""
NEAR_SD = 0.25
"""The sd of a seed's effect in logits there."""
_X, _W = hermegauss(61)
_W = _W / _W.sum()


@dataclass(frozen=True, slots=True)
class Cell:
    """One design and world: k seeds, n prompts, the true mean outcome, the sd of a seed's effect in logits, outcomes' kind."""

    k: int
    n: int
    rate: float
    seed_sd: float
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Shares of the studies. `rate`, `difference`: the interval holds the truth, of an arm's win rate, of two arms' difference.

    `two_way`: `rate` without the mixed model. `family[m]`: any false verdict among m arms against another arm; `against_even[m]`
    against one half (None unless the rate is one half). One seed: the truth is that of the checkpoints.
    """

    rate: float
    two_way: float
    difference: float
    family: dict[int, float]
    against_even: dict[int, float] | None
    studies: int


def measure(cell: Cell, studies: int, *, seed: int = 0, arms: Sequence[int] = ARMS, fits: int = 25) -> Measured:
    """Simulates a cell. The mixed model is fitted to at most `fits` of the studies whose two-way interval fails, and scaled up
    (where those are more than 5.5 %: it can only help).
    """
    draw = rng(seed, "simulate", cell.k, cell.n, int(1000 * cell.rate), int(10 * cell.seed_sd), KINDS.index(cell.kind))
    size = max(1, min(studies, 3_000_000 // ((max(arms) + 1) * cell.k * cell.n)))
    parts = [_chunk(cell, min(size, studies - start), draw, arms) for start in range(0, studies, size)]
    failed = np.concatenate([p["failed"] for p in parts])[:fits]
    mean = lambda name: float(np.concatenate([p[name] for p in parts]).mean(axis=0))  # noqa: E731
    two_way, rescued = mean("rate"), 0.0
    if cell.k >= MIXED_FROM and cell.kind != "graded" and two_way < 1 - MOST:
        rescued = float(np.mean([holds(mixed_win_rate(y).interval(), cell.rate) for y in failed]))
    family = {m: mean(f"arms {m}") for m in arms}
    even = {m: mean(f"even {m}") for m in arms} if cell.rate == 0.5 else None
    covered = two_way + (1 - two_way) * rescued
    return Measured(
        rate=covered, two_way=two_way, difference=mean("difference"), family=family, against_even=even, studies=studies
    )


def _chunk(cell: Cell, studies: int, draw: np.random.Generator, arms: Sequence[int]) -> dict[str, NDArray[Any]]:
    y, truth = _outcomes(cell, studies, max(arms) + 1, draw)
    low, high = many_limits(y[:, 0], GAPS[cell.kind])(0.95)
    held = (low <= truth[:, 0]) & (truth[:, 0] <= high)
    found: dict[str, NDArray[Any]] = {"rate": held, "failed": y[:, 0][~held]}
    d = y[:, 1:] - y[:, :1]
    estimate, agreed, half = d.mean(axis=(-2, -1)), agree(d.mean(axis=-1)), many_half_widths(d, GAPS[cell.kind])
    found["difference"] = (np.abs(estimate - truth[:, 1:] + truth[:, :1]) <= half(0.95))[:, 0]
    sure = sign_p(d[:, :, 0]) if cell.k == 1 else np.zeros_like(estimate)  # at two seeds it could only lower these errors
    for m in arms:
        excluded = (np.abs(estimate) > half(1 - 0.05 / m)) & (sure < 0.05 / m)
        found[f"arms {m}"] = np.asarray(np.logical_and(agreed, excluded)[:, :m].any(axis=1))
    if cell.rate == 0.5:
        own = y[:, 1:]
        limits, agreed = many_limits(own, GAPS[cell.kind]), agree(own.mean(axis=-1) - 0.5)
        sure = sign_p(own[:, :, 0] - np.float32(0.5)) if cell.k == 1 else np.zeros_like(estimate)
        for m in arms:
            low, high = limits(1 - 0.05 / m)
            excluded = ((low > 0.5) | (high < 0.5)) & (sure < 0.05 / m)
            found[f"even {m}"] = np.asarray(np.logical_and(agreed, excluded)[:, :m].any(axis=1))
    return found


def many_half_widths(d: Array, gap: float) -> Callable[[float], Array]:
    """Half-widths [...] of `paired_difference` for tables [..., k, n] at any level; `gap` is their `lattice`."""
    reach = np.abs(d).max(axis=(-2, -1))
    floor = least_variance(d.mean(axis=-2), cast(float, np.where(reach > 0, reach, 1.0)))
    components = variance_components(d, gap)
    return lambda level: np.maximum(half_widths(components, level), half_widths([floor], level))


def many_limits(y: Array, gap: float) -> Callable[[float], tuple[Array, Array]]:
    """Lower and upper limits [...] of `win_rate` for tables [..., k, n] at any level, the mixed model aside."""
    share, score = y.mean(axis=(-2, -1)), score_part(y.mean(axis=-2))
    parts, room = variance_components(y, gap), share * (1 - share)
    certain = room < EQUAL

    def limits(level: float) -> tuple[Array, Array]:
        quotient = half_widths([score], level) ** 2 + np.zeros_like(share)
        if y.shape[-2] > 1:
            both = half_widths(parts, level) ** 2 / np.where(certain, 1.0, room)
            quotient = np.where(certain, quotient, np.maximum(quotient, both))
        return score_limits(share, quotient)

    return limits


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
    return np.float32(0.5) * (
        (chance < expit(x - np.float32(CUT))) + (chance < expit(x + np.float32(CUT))).astype(np.float32)
    ), truth


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


def agree(per_seed: Array) -> NDArray[np.bool_]:
    """Whether so many seeds [..., k] have one sign as a verdict needs."""
    most = np.maximum((per_seed > 0).sum(axis=-1), (per_seed < 0).sum(axis=-1))
    return np.asarray(most >= seeds_needed(per_seed.shape[-1]))


def holds(interval: tuple[float, float], truth: float) -> bool:
    """Whether an interval does, ends included."""
    return interval[0] <= truth <= interval[1]


def planned_designs() -> Iterator[tuple[int, int, float]]:
    """Seeds, prompts, and how far the better arm is ahead, wherever the page shows power."""
    yield from product(SEEDS, PROMPTS, AHEAD)


def power_of(k: int, n: int, ahead: float) -> tuple[float, float]:
    """The share of studies of k seeds and n prompts that tell two arms apart: as planned from the parts of a large pilot, and as
    found."""
    true, parts = _pilot(ahead)
    planned = power(true, n, k, sd_noise=parts.noise, sd_prompt=parts.prompt, sd_seed=parts.seed, gap=1.0)
    d = _gaps(min(20_000, 10_000_000 // (k * n)), k, n, ahead, rng(0, "power", k, n, int(10 * ahead)))
    told = (d.mean(axis=(-2, -1)) > many_half_widths(d, 1.0)(0.95)) & agree(d.mean(axis=-1))
    return planned, float(told.mean())


@functools.cache
def _pilot(ahead: float) -> tuple[float, Spread]:
    """The true difference of two arms, and its parts by 2000 seeds and as many prompts."""
    sd = float(np.sqrt(NEAR_SD**2 + PROMPT_SD**2 + OWN_SD**2))
    shares = _mean_outcome("win/loss", np.array([ahead, 0.0]), sd)
    return float(shares[0] - shares[1]), spread(_gaps(1, 2000, 2000, ahead, rng(0, "pilot", int(10 * ahead)))[0])


def _gaps(studies: int, k: int, n: int, ahead: float, draw: np.random.Generator) -> Array:
    """Wins of the better arm less those of the other [studies, k, n]."""
    prompts = PROMPT_SD * draw.normal(size=(studies, 1, n))
    own = lambda: NEAR_SD * draw.normal(size=(studies, k, 1)) + OWN_SD * draw.normal(size=(studies, 1, n))  # noqa: E731
    one, other = (draw.random((studies, k, n)) < expit(prompts + shift + own()) for shift in (ahead, 0.0))
    return one.astype(float) - other.astype(float)


def grid() -> Iterator[Cell]:
    """Every cell of the page."""
    for kind, k, n, rate, sd in product(KINDS, SEEDS, PROMPTS, RATES, SEED_SDS):
        yield Cell(k, n, rate, sd, kind)


def worst_error(cell: Cell, m: Measured) -> float | None:
    """The largest family-wise error of a cell; None where one seed cannot speak of seeds that differ."""
    if cell.k == 1 and cell.seed_sd > 0:
        return None
    return max([*m.family.values(), *(m.against_even or {}).values()])


def budget(cell: Cell, elements: float = 5e6) -> int:
    """Studies of a cell: 250 to 2000, fewer where a study is large."""
    return int(np.clip(elements / (11 * cell.k * cell.n), 250, 2000))


def surveyed(cell: Cell) -> Measured:
    """A cell measured; near or beyond a limit, again and alone, with four times the studies.

    An error that is still over the limit is the largest of up to six noisy shares: it is settled by `SETTLED` studies of its own,
    and by ten times as many where it still is.
    """
    found = measure(cell, budget(cell))
    error = worst_error(cell, found) or 0.0
    if min(found.rate, found.difference) >= LEAST + 0.015 and error <= MOST - 0.01:
        return found
    found = measure(cell, 4 * budget(cell), seed=1, fits=25)
    for seed, studies in ((2, SETTLED), (3, 10 * SETTLED)):
        if (worst_error(cell, found) or 0.0) > MOST:
            found = measure(cell, studies, seed=seed, fits=25)
    return found
