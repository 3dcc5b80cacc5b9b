"""What each arm cost, in every unit that was recorded, and in which of them the arms were equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evenhand.report.formatting import MISSING, amount, duration, fixed, is_number
from evenhand.report.plots.curves import Curves
from evenhand.report.plots.phases import mean_seconds
from evenhand.report.summaries import Column
from evenhand.report.summary import ArmRow, Summary
from evenhand.results.fairness import EQUAL

Ledgers = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""arm -> seed -> ledger."""


@dataclass(frozen=True, slots=True)
class BudgetTable:
    """What one seed of an arm cost, on average: rows of an arm, its seeds, and a cell per unit.

    `ratios` has, per unit, the most costly trained arm over the cheapest, in words.
    """

    units: tuple[Column, ...]
    rows: tuple[tuple[ArmRow, int, tuple[str, ...]], ...]
    ratios: tuple[str, ...]

    @property
    def spread(self) -> list[tuple[str, str]]:
        """(unit within a sentence, its ratio) where there is one."""
        return [(in_sentence(u.title), r) for u, r in zip(self.units, self.ratios, strict=True) if r != MISSING]


def in_sentence(title: str) -> str:
    """A title as it stands within a sentence.

    >>> in_sentence("Tokens trained on"), in_sentence("FLOPs")
    ('tokens trained on', 'FLOPs')
    """
    return title[0].lower() + title[1:] if title[1].islower() else title


COUNTS = (
    Column("tokens_generated", "Tokens generated", amount),
    Column("tokens_trained", "Tokens trained on", amount),
    Column("reward_calls", "Reward calls", amount),
    Column("flops", "FLOPs", amount),
    Column("seconds", "Time", duration),
)
SPEED = Column("steps_per_second", "Steps per second", fixed)
NOT_STEPS = ("load", "save", "watch", "validate")
"""Phases of a training run that no step waits for."""
COST = Column("judge_cost_usd", "Judging, dollars", lambda value: fixed(value, 4))


def budget(summary: Summary, ledgers: Ledgers, experiment: Mapping[str, Any], curves: Curves | None = None) -> BudgetTable | None:
    """Mean cost per seed: from the ledgers on disk, else from the arm's own ledger in the results; None without either.

    `curves` say how many steps an arm took, and so how many in a second.
    """
    by = device(experiment)
    spent = spent_by_arm(summary, ledgers, experiment, curves)
    units = [
        u for u in (*COUNTS, *([by.unit] if by else []), SPEED, COST) if any(is_number(c.get(u.key)) for c in spent.values())
    ]
    if not spent:
        return None
    trained = [costs for costs in spent.values() if costs.get("tokens_trained")]
    rows = [
        (arm, len(ledgers.get(arm.name) or summary.results.seeds), tuple(u.shown(spent[arm.name].get(u.key)) for u in units))
        for arm in summary.ranked
        if arm.name in spent
    ]
    # a speed is nothing that could be held equal
    ratios = tuple(MISSING if u is SPEED else _ratio([costs.get(u.key) for costs in trained]) for u in units)
    return BudgetTable(tuple(units), tuple(rows), ratios)


def spent_by_arm(
    summary: Summary, ledgers: Ledgers, experiment: Mapping[str, Any], curves: Curves | None = None
) -> dict[str, dict[str, float | None]]:
    """What one seed of an arm cost, by unit, as a mean over its seeds; arms of which nothing is known are left out."""
    by = device(experiment)
    spent = {arm.name: costs for arm in summary.arms if (costs := _costs(arm, ledgers.get(arm.name, {}), by))}
    for arm, speed in steps_per_second(curves or {}, ledgers).items():
        if arm in spent:
            spent[arm][SPEED.key] = speed
    return spent


def steps_per_second(curves: Curves, ledgers: Ledgers) -> dict[str, float]:
    """Steps of an arm over the seconds that they took, sampling and scoring included; mean over its seeds."""
    found: dict[str, list[float]] = {}
    for arm, seeds in ledgers.items():
        for seed, ledger in seeds.items():
            steps = max((row["step"] for row in curves.get(arm, {}).get(seed, ()) if "step" in row), default=0)
            seconds = sum(v for phase, v in (ledger.get("seconds") or {}).items() if is_number(v) and phase not in NOT_STEPS)
            if steps and seconds > 0:
                found.setdefault(arm, []).append(steps / seconds)
    return {arm: sum(values) / len(values) for arm, values in found.items()}


@dataclass(frozen=True, slots=True)
class Device:
    """What did the work: `per_second` of its seconds pass, at most, in one second of a worker."""

    unit: Column
    per_second: int


def device(experiment: Mapping[str, Any]) -> Device | None:
    """An accelerator, else the processor's cores (all of a worker's threads); None where the run did not record it."""
    if "accelerators" not in experiment:
        return None
    asked = ((experiment.get("effective") or {}).get("runtime") or {}).get("device", "auto")
    if asked != "cpu" and experiment["accelerators"]:
        return Device(Column("device_seconds", "GPU-seconds", amount), 1)
    return Device(Column("device_seconds", "CPU-seconds, at most", amount), int(experiment.get("threads") or 1))


def _costs(arm: ArmRow, seeds: Mapping[str, Mapping[str, Any]], by: Device | None) -> dict[str, float | None]:
    own = arm.result.ledger
    entries = list(seeds.values()) or ([asdict(own)] if own is not None else [])
    if not entries:
        return {}
    found = {unit.key: _mean([entry.get(unit.key) for entry in entries]) for unit in COUNTS}
    found["seconds"] = sum(mean_seconds({arm.name: seeds}).get(arm.name, {}).values()) or None
    cost = arm.result.judge_cost_usd
    found["judge_cost_usd"] = cost / max(len(arm.result.seeds or seeds), 1) if cost is not None else None
    if by is not None and found["seconds"] is not None:
        found[by.unit.key] = found["seconds"] * by.per_second
    return found


def _ratio(values: Sequence[float | None]) -> str:
    """How far apart the trained arms are in one unit."""
    known = [v for v in values if is_number(v)]
    if len(known) < 2 or not any(known):
        return MISSING
    if min(known) == 0:
        return "not all"
    ratio = max(known) / min(known)
    return "equal" if ratio <= EQUAL else f"x {fixed(ratio, 1)}"


def _mean(values: Sequence[Any]) -> float | None:
    known = [value for value in values if is_number(value)]
    return sum(known) / len(known) if known else None
