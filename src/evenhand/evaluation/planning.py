"""Planning a study: from a wished difference, or from a smaller study, to prompts and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.errors import UserError
from evenhand.evaluation.outcomes import check_alike, tabulate
from evenhand.evaluation.readers import Row
from evenhand.stats import paired_difference, planned_resolution, power, prompts_needed

PROMPTS, SEEDS = (100, 200, 400, 800, 1600), (2, 3, 5, 8)
"""The designs of the table that goes with every plan."""


def spreads(rows: Sequence[Row], contrast: tuple[str, str] | None = None) -> dict[str, float]:
    """{sd_noise, gap, sd_prompt, sd_seed} of two arms' difference in a smaller study: its variance parts (`crossed.spread`).

    One seed tells nothing of seeds, nor prompts from noise: then only sd_noise, which holds both.
    """
    tables = tabulate(rows)
    names = contrast or tuple(tables)
    if len(names) != 2 or any(n not in tables for n in names):
        raise UserError(f"the pilot has the arms {', '.join(tables)}", where="pilot", fix="name two of them: --contrast A:B")
    pair = {name: tables[name] for name in names}
    check_alike(pair)
    found = paired_difference(pair[names[0]].outcome, pair[names[1]].outcome)
    parts = {"sd_noise": found.spread.noise, "gap": found.spread.gap}
    return parts if found.k == 1 else {**parts, "sd_prompt": found.spread.prompt, "sd_seed": found.spread.seed}


def plan_study(
    difference: float,
    prompts: int,
    seeds: int,
    *,
    sd_noise: float,
    sd_prompt: float = 0.0,
    sd_seed: float = 0.0,
    power: float = 0.8,
    alpha: float = 0.05,
    contrasts: int = 1,
    gap: float = 1.0,
) -> dict[str, Any]:
    """What a design of so many prompts and seeds finds, what the wished difference needs, and the same said in `lines`.

    All by simulation of the verdict that the report will give; see `stats.planning`. `gap`: between neighbouring outcomes, 1 for
    wins and losses, 0 for rewards.
    """
    sds: dict[str, Any] = {"sd_noise": sd_noise, "sd_prompt": sd_prompt, "sd_seed": sd_seed, "gap": gap}
    odds: dict[str, Any] = {"power": power, "alpha": alpha, "contrasts": contrasts}
    found: dict[str, Any] = {
        "difference": difference, "prompts": prompts, "seeds": seeds, **sds, **odds,
        "power_for_difference": _power(difference, prompts, seeds, sds, alpha, contrasts),
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


def _power(difference: float, prompts: int, seeds: int, sds: dict[str, float], alpha: float, contrasts: int) -> float:
    if not any(sds.values()):
        return float(difference != 0.0)
    return power(difference, prompts, seeds, **sds, alpha=alpha, contrasts=contrasts)


def _lines(found: dict[str, Any], needed: str, seeds: int) -> list[str]:
    keys = ("difference", "sd_noise", "sd_prompt", "sd_seed", "resolves")
    wished, noise, prompt, seed, resolved = (f"{100 * found[k]:.1f} points" for k in keys)
    family = f", corrected for {found['contrasts']} contrasts" if found["contrasts"] > 1 else ""
    limits = "of new seeds too" if seeds > 1 else "of these very checkpoints: one seed tells nothing of seeds"
    lines = [
        f"spread of the paired difference: single answers {noise}, prompts in every seed {prompt}, seeds {seed}",
        f"to find {wished} with power {found['power']:.0%}, {seeds} seeds: {needed}",
        f"{found['prompts']} prompts, {seeds} seeds: power {found['power_for_difference']:.0%} for that difference; with power "
        f"{found['power']:.0%} the report will call {resolved} better ({limits}{family})",
    ]
    if not found["sd_seed"] and seeds > 1:
        lines.append("no seed effect was given (--sd-seed or --pilot with seeds): these numbers are too hopeful if there is one")
    return lines


def _table(designs: Mapping[int, Mapping[int, float]]) -> list[str]:
    lines = ["what designs resolve with that power, in points:", "  prompts " + "".join(f"{f'{k} seeds':>9}" for k in SEEDS)]
    return lines + [f"  {n:7d} " + "".join(f"{100 * row[k]:9.1f}" for k in SEEDS) for n, row in designs.items()]
