"""Measured coverage of the intervals and error rate of the verdict, by simulation: `python -m evenhand.stats.coverage`.

Each repetition draws a fresh study with crossed effects d[s, i] = u_s + v_i + e (or judged outcomes with such effects) and
asks whether the nominal 95 % interval holds the truth. docs/statistics.md shows the output.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from evenhand.seeding import rng
from evenhand.stats.arrays import Array
from evenhand.stats.crossed import least_variance, mean_squares
from evenhand.stats.intervals import Component, half_width, half_widths, satterthwaite
from evenhand.stats.simulate import agree, holds, many_half_widths, many_limits
from evenhand.stats.twoway import unmatched_difference


@dataclass(frozen=True, slots=True)
class CoverageStudy:
    """A design and its true standard deviations: `seed_sd` of u_s, `prompt_sd` of v_i, `noise_sd` of e."""

    k: int
    n: int
    seed_sd: float
    prompt_sd: float
    noise_sd: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares over repetitions: each interval holds the truth; the verdict claims a difference though there is none.

    `two_way` is ours; `satterthwaite` the single t quantile with Satterthwaite's degrees of freedom; `prompts_only` the
    interval that takes these checkpoints for the method. `width` is the median half-width of `two_way`.
    """

    two_way: float
    satterthwaite: float
    prompts_only: float
    false_verdicts: float
    width: float


def difference_coverage(study: CoverageStudy, repetitions: int = 4000, seed: int = 0) -> Coverage:
    """Coverage of `paired_difference` when the true difference is zero."""
    draw = rng(seed, "difference_coverage", study.k, study.n)
    d = np.stack([_normal_table(study, draw) for _ in range(repetitions)])
    distance, half = np.abs(d.mean(axis=(1, 2))), many_half_widths(d, 0.0)(0.95)
    alone = least_variance(d.mean(axis=1), 0.0)
    plain = np.array([plain_half_width(table) for table in d])
    return Coverage(
        two_way=float((distance <= half).mean()),
        satterthwaite=float((distance <= plain).mean()),
        prompts_only=float((distance <= half_widths([alone])).mean()),
        false_verdicts=float(((distance > half) & agree(d.mean(axis=2))).mean()),
        width=float(np.median(half)),
    )


def unmatched_coverage(study: CoverageStudy, k_b: int, repetitions: int = 4000, seed: int = 0) -> float:
    """Coverage of `unmatched_difference` with k and `k_b` independent seeds that share prompts (prompt_sd acts on A alone)."""
    draw, held = rng(seed, "unmatched_coverage", study.k, k_b, study.n), 0
    shared = CoverageStudy(k_b, study.n, study.seed_sd, 0.0, study.noise_sd)
    for _ in range(repetitions):
        a, b, common = _normal_table(study, draw), _normal_table(shared, draw), draw.normal(size=study.n)
        held += holds(unmatched_difference(a + common, b + common).ci95, 0.0)
    return held / repetitions


def win_rate_coverage(study: CoverageStudy, rate: float, repetitions: int = 4000, seed: int = 0) -> float:
    """Coverage of `win_rate` for judged outcomes 0 or 1 with P(win) = clip(rate + u_s + v_i); `noise_sd` is not used.

    Clipping moves the mean, so the true rate is measured on a large table of its own. The mixed model, which can only widen the
    interval, is left out.
    """
    draw = rng(seed, "win_rate_coverage", study.k, study.n)
    many = _normal_table(CoverageStudy(2000, 2000, study.seed_sd, study.prompt_sd, 0.0), draw)
    truth = float(np.clip(rate + many, 0.0, 1.0).mean())
    quiet = CoverageStudy(study.k, study.n, study.seed_sd, study.prompt_sd, 0.0)
    chance = np.stack([np.clip(rate + _normal_table(quiet, draw), 0.0, 1.0) for _ in range(repetitions)])
    low, high = many_limits((draw.random(chance.shape) < chance).astype(float), 1.0)(0.95)
    return float(((low <= truth) & (truth <= high)).mean())


def plain_half_width(table: Array) -> float:
    """The interval this package does not use: t_nu sqrt(V), V = (MS_S + MS_P - MS_E)/nk, nu by Satterthwaite over all three."""
    k, n = table.shape
    ms = mean_squares(table)
    total = ms.seeds + ms.prompts - ms.residual
    variance = (total if total > 0 else max(ms.seeds, ms.prompts)) / (n * k)
    parts = (Component(ms.seeds, k - 1), Component(ms.prompts, n - 1), Component(ms.residual, (k - 1) * (n - 1)))
    df = total**2 / (sum(c.variance for c in parts) ** 2 / satterthwaite(parts))
    return half_width([Component(variance, max(df, 0.01))])


STUDIES = tuple(
    CoverageStudy(k, 200, seed_sd, prompt_sd, 0.4)
    for k in (2, 3, 5)
    for seed_sd, prompt_sd in ((0.0, 0.15), (0.02, 0.15), (0.03, 0.15), (0.05, 0.15), (0.03, 0.4))
)


def main(repetitions: int = 4000) -> None:
    """Print the tables of docs/statistics.md."""
    print("| seeds | prompts | seed sd | prompt sd | two-way | Satterthwaite | prompts only | false verdicts | half-width |")
    print("|---|---|---|---|---|---|---|---|---|")
    for s in STUDIES:
        c = difference_coverage(s, repetitions)
        shares = " | ".join(f"{100 * x:.1f} %" for x in (c.two_way, c.satterthwaite, c.prompts_only, c.false_verdicts))
        print(f"| {s.k} | {s.n} | {s.seed_sd} | {s.prompt_sd} | {shares} | {c.width:.3f} |")
    print("\n| seeds of A, B | unmatched | seeds | win rate .5 | win rate .9 |\n|---|---|---|---|---|")
    for k, k_b in ((2, 2), (3, 3), (5, 3)):
        unmatched = unmatched_coverage(CoverageStudy(k, 200, 0.03, 0.15, 0.4), k_b, repetitions)
        rates = [win_rate_coverage(CoverageStudy(k, 200, 0.03, 0.1, 0.0), r, repetitions) for r in (0.5, 0.9)]
        print(f"| {k}, {k_b} | {100 * unmatched:.1f} % | {k} | " + " | ".join(f"{100 * r:.1f} %" for r in rates) + " |")


def _normal_table(study: CoverageStudy, draw: np.random.Generator) -> Array:
    u = study.seed_sd * draw.normal(size=(study.k, 1))
    v = study.prompt_sd * draw.normal(size=(1, study.n))
    return u + v + study.noise_sd * draw.normal(size=(study.k, study.n))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
