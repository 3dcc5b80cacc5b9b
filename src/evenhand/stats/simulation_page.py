"""`docs/statistics_simulated.md` from what `simulate` measured: a table per kind of outcome and number of seeds."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import numpy as np

from evenhand.stats.looks import look
from evenhand.stats.simulate import (
    AHEAD,
    KINDS,
    LEAST,
    MOST,
    NEAR_SD,
    PROMPTS,
    RATES,
    SEED_SDS,
    SEEDS,
    SETTLED,
    Cell,
    Measured,
    grid,
    planned_designs,
    power_of,
    surveyed,
    worst_error,
)

COMMAND = "python -m evenhand.stats.simulation_page docs/statistics_simulated.md"
_PLANS = (((3, 128), (4, 128), (5, 128)), ((2, 100), (3, 100), (5, 100), (5, 500)))


INTRODUCTION = """# Coverage and error rates, simulated

Made by `{command}` on one core (slow lane); [statistics.md](statistics.md) explains the
methods. {cells} cells of {least_studies} to {most_studies} studies each: fewer where a study is large, more where a first look
was near a limit ({machine}, numpy {numpy}). A share of 95 % has a standard error of 0.2 points at 10000 studies, 0.5 at 2000 and
1.4 at 250.

A study has 11 arms of k seeds that answer the same n prompts, x = eta + sd u[arm, seed] + v[prompt] + w[arm, prompt] / 2 in
logits, all normal of sd 1. Win/loss: a win with probability sigma(x). Ties: a win, tie or loss as x plus logistic noise lies
above 1, between, or below -1. Graded: sigma(x + e), e normal of sd 1. eta makes the mean outcome over seeds and prompts the
rate. All arms are alike: every verdict between them is false.

Each entry: coverage of an arm's win rate / of the difference of two arms / largest family-wise error of 1, 3 and 10 arms
(against another arm and, at rate .5, against one half), in per cent; the largest of six noisy shares lies above the true one.
**Bold**: coverage under {least:g}, error over {most:g}. With one seed the truth is that of the
checkpoints, and errors are shown where seeds do not differ (–: one seed cannot speak of seeds).
"""
BEYOND = """## Beyond it

{few} of {cells} cells have a coverage under {least:g} %, {wrong} a family-wise error over {most:g} %. What fails is a rate above
one half whose seeds differ by 2 logits, or by 1 near a rate of 1 (a few seeds then all look alike, and the one that fails has not
been drawn); grades near 1 of one seed on few prompts; and a dip of Wilson's interval. An error that was over {most:g} % was
measured anew with {settled} studies, and with {ten_times} where it stood there too: what is listed stood in both. It belongs to
three seeds that differ by 2 logits, tested against one half: their shares are then U-shaped, and Student's t of three such values
rejects a little too often. A wider quantile for such seeds would need their shape, which three of them do not show.
"""
POWER = """## Power

Two arms of wins and losses as above, of which one is ahead by so many logits and whose seeds differ by {near:g}: how often it is
called better, as `stats plan` promises from the parts of a large pilot / in 2500 to 20000 studies, in per cent.
"""


def page(found: Mapping[Cell, Measured], powers: Mapping[tuple[int, int, float], tuple[float, float]]) -> str:
    """The whole page as Markdown: of every cell and of every design (`simulate.planned_designs`) what was measured."""
    beyond = [(c, m) for c, m in found.items() if m.rate < LEAST or m.difference < LEAST]
    wrong = [(c, m) for c, m in found.items() if exceeds(c, m)]
    limits = {"least": 100 * LEAST, "most": 100 * MOST, "cells": len(found), "settled": SETTLED, "ten_times": 10 * SETTLED}
    counts = [m.studies for m in found.values()]
    made = {"machine": f"{platform.system()} {platform.machine()}", "numpy": np.__version__}
    studies = {"least_studies": min(counts), "most_studies": max(counts), **made}
    lines = [
        INTRODUCTION.format(command=COMMAND, **limits, **studies),
        BEYOND.format(few=len(beyond), wrong=len(wrong), **limits),
    ]
    lines += _listed([*beyond, *(pair for pair in wrong if pair not in beyond)])
    for kind, k in product(KINDS, SEEDS):
        lines += _table(found, kind, k)
    return "\n".join([*lines, *_power(powers), *_looks()])


def _listed(cells: list[tuple[Cell, Measured]]) -> Iterator[str]:
    """The cells that the intervals do not reach, one by one."""
    for c, m in cells:
        design = f"{c.kind}, {c.k} seed{'s' * (c.k > 1)}, {c.n} prompts, rate {c.rate:g}, seed sd {c.seed_sd:g}"
        yield f"- {design}: {_entry(c, m)}"
    yield ""


def _table(found: Mapping[Cell, Measured], kind: str, k: int) -> Iterator[str]:
    yield f"## {kind[0].upper()}{kind[1:]}, {k} seed{'s' * (k > 1)}"
    yield ""
    yield "| prompts | rate | " + " | ".join(f"seed sd {sd:g}" for sd in SEED_SDS) + " |"
    yield "|---|---|" + "---|" * len(SEED_SDS)
    for n, rate in product(PROMPTS, RATES):
        cells = [Cell(k, n, rate, sd, kind) for sd in SEED_SDS]
        yield f"| {n} | {rate:g} | " + " | ".join(_entry(c, found[c]) for c in cells) + " |"
    yield ""


def exceeds(cell: Cell, m: Measured) -> bool:
    """Whether a family-wise error is over the limit, as measured: some of it may be the noise of the simulation."""
    error = worst_error(cell, m)
    return error is not None and error > MOST


def _entry(cell: Cell, m: Measured) -> str:
    error = worst_error(cell, m)
    covered = [_marked(v, v < LEAST) for v in (m.rate, m.difference)]
    return " / ".join([*covered, "–" if error is None else _marked(error, exceeds(cell, m))])


def _marked(share: float, beyond: bool) -> str:
    return f"**{100 * share:.1f}**" if beyond else f"{100 * share:.1f}"


def _power(found: Mapping[tuple[int, int, float], tuple[float, float]]) -> Iterator[str]:
    """What planning promises of a difference beside what studies find of it."""
    yield POWER.format(near=NEAR_SD)
    yield "| seeds | prompts | " + " | ".join(f"{ahead:g} ahead" for ahead in AHEAD) + " |"
    yield "|---|---|" + "---|" * len(AHEAD)
    for k, n in product(SEEDS, PROMPTS):
        shares = (found[k, n, ahead] for ahead in AHEAD)
        yield f"| {k} | {n} | " + " | ".join(f"{100 * planned:.1f} / {100 * told:.1f}" for planned, told in shares) + " |"
    yield ""


def _looks() -> Iterator[str]:
    """What alpha spending leaves to each look of two plans."""
    yield "## Looking more than once"
    yield ""
    yield "The level of each look under a plan of the last design (`stats.looks`); they add up to 5 %."
    yield ""
    yield "| plan | " + " | ".join(f"look {j}" for j in range(1, 5)) + " |"
    yield "|---|" + "---|" * 4
    for designs in _PLANS:
        entries = [f"{k} x {n}: {100 * look(designs[:j], designs[-1]).alpha:.2f} %" for j, (k, n) in enumerate(designs, start=1)]
        yield f"| {designs[-1][0]} seeds, {designs[-1][1]} prompts | " + " | ".join([*entries, *[""] * (4 - len(entries))]) + " |"
    yield ""


def main() -> None:
    """Writes the page to the path given, or prints it."""
    text = page({cell: surveyed(cell) for cell in grid()}, {d: power_of(*d) for d in planned_designs()})
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
