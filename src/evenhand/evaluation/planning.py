"""Planning a study: from a wished difference, or from a smaller study, to prompts and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.errors import UserError
from evenhand.evaluation.outcomes import check_alike, tabulate
from evenhand.evaluation.readers import Row
from evenhand.stats import minimum_detectable_difference, planned_resolution, power, prompts_needed
from evenhand.stats.twoway import mean_squares

PROMPTS, SEEDS = (100, 200, 400, 800, 1600), (2, 3, 5, 8)
"""The designs of the table that goes with every plan."""


def spreads(rows: Sequence[Row], contrast: tuple[str, str] | None = None) -> dict[str, float]:
    """{sd_prompt, sd_seed} of the difference of two arms in a smaller study.

    sd_prompt is over prompts, of the difference averaged over the study's seeds; sd_seed^2 = max(0, MS_S - MS_E) / n from the
    two-way mean squares, and absent with one seed, which says nothing about seeds.
    """
    tables = tabulate(rows)
    names = contrast or tuple(tables)
    if len(names) != 2 or any(n not in tables for n in names):
        raise UserError(f"the pilot has the arms {', '.join(tables)}", where="pilot", fix="name two of them: --contrast A:B")
    pair = {name: tables[name] for name in names}
    check_alike(pair)
    d = pair[names[0]].outcome - pair[names[1]].outcome
    found = {"sd_prompt": float(d.mean(axis=0).std(ddof=1))}
    if len(d) > 1:
        ms = mean_squares(d)
        found["sd_seed"] = math.sqrt(max(0.0, ms.seeds - ms.residual) / d.shape[1])
    return found


def plan_study(
    difference: float, prompts: int, seeds: int, *, sd_prompt: float, sd_seed: float, power: float = 0.8, alpha: float = 0.05
) -> dict[str, Any]:
    """What a design of so many prompts and seeds finds, what the wished difference needs, and the same said in `lines`.

    `resolves` has the t quantiles of few seeds; the others are the normal approximation.
    """
    sds, odds = {"sd_prompt": sd_prompt, "sd_seed": sd_seed}, {"power": power, "alpha": alpha}
    found: dict[str, Any] = {
        "difference": difference, "prompts": prompts, "seeds": seeds, **sds, **odds,
        "power_for_difference": _power(difference, prompts, seeds, sds, alpha),
        "minimum_detectable_difference": minimum_detectable_difference(prompts, seeds, **sds, **odds),
        "resolves": planned_resolution(prompts, seeds, **sds, **odds),
    }  # fmt: skip
    try:
        found["prompts_needed"] = prompts_needed(difference, seeds=seeds, **sds, **odds)
        needed = f"{found['prompts_needed']} prompts"
    except UserError as error:
        found["prompts_needed"] = None
        needed = f"{error.what}: {error.why}; {error.fix}" if error.why else error.what
    designs = {n: {k: planned_resolution(n, k, **sds, **odds) for k in SEEDS} for n in PROMPTS}
    return {**found, "designs": designs, "lines": [*_lines(found, needed, seeds), *_table(designs)]}


def _power(difference: float, prompts: int, seeds: int, sds: dict[str, float], alpha: float) -> float:
    if not any(sds.values()):
        return float(difference != 0.0)
    return power(difference, prompts, seeds, **sds, alpha=alpha)


def _lines(found: dict[str, Any], needed: str, seeds: int) -> list[str]:
    keys = ("difference", "sd_prompt", "sd_seed", "minimum_detectable_difference", "resolves")
    wished, spread, seed_spread, least, resolved = (f"{100 * found[k]:.1f} points" for k in keys)
    limits = "Student quantiles of few seeds included" if seeds > 1 else "these very checkpoints: one seed tells nothing of seeds"
    lines = [
        f"spread of the paired difference over prompts {spread}, over seeds {seed_spread}",
        f"to find {wished} with power {found['power']:.0%}, {seeds} seeds: {needed}",
        f"{found['prompts']} prompts, {seeds} seeds: power {found['power_for_difference']:.0%} for that difference; the smallest "
        f"found with power {found['power']:.0%} is {least} (normal approximation)",
        f"the interval this design will print resolves {resolved} ({limits})",
    ]
    if not found["sd_seed"] and seeds > 1:
        lines.append("no seed effect was given (--sd-seed or --pilot with seeds): these numbers are too hopeful if there is one")
    return lines


def _table(designs: Mapping[int, Mapping[int, float]]) -> list[str]:
    lines = ["what designs resolve, in points:", "  prompts " + "".join(f"{f'{k} seeds':>9}" for k in SEEDS)]
    return lines + [f"  {n:7d} " + "".join(f"{100 * row[k]:9.1f}" for k in SEEDS) for n, row in designs.items()]
