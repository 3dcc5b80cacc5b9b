"""The tables of the page: verdicts, other evaluations, reward models and cost, the runs of an arm below each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.report.budget import COUNTS, SPEED, Unit, spent_by_arm
from evenhand.report.formatting import MISSING, amount, duration, fixed, interval, is_number, percent, points, points_interval
from evenhand.report.side_by_side.series import RunsShown, Series
from evenhand.report.side_by_side.text import less
from evenhand.results.record import ArmVerdict
from evenhand.results.side_by_side.opened import OpenedRun
from evenhand.store import spent

STEPS = Unit("steps", "Steps", amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """An arm in a run, in words. `first` opens a new arm; `comparable` False: its win rate is on another scale."""

    series: Series
    first: bool
    comparable: bool
    method: str
    verdict: ArmVerdict
    win_rate: str
    ci95: str
    less: str
    note: str
    gold: str
    kl: str
    length: str


def verdict_rows(shown: RunsShown) -> list[RunRow]:
    """Every arm of every run; the interval is the one that goes with the verdict."""
    return [_verdict(shown, one, first) for one, first in _opening(shown.series)]


def _verdict(shown: RunsShown, one: Series, first: bool) -> RunRow:
    row, compared = one.row, shown.compared
    gap, note = less(compared, one.arm, one.label)
    return RunRow(
        series=one,
        first=first,
        comparable=compared.comparable(one.label),
        method=row.result.method or "",
        verdict=row.verdict,
        win_rate=percent(row.win_rate),
        ci95=interval(row.ci95_simultaneous or row.ci95),
        less=gap,
        note=note,
        gold=fixed(row.result.gold),
        kl=fixed(row.result.kl, 1),
        length=fixed(row.result.mean_length, 1),
    )


def _opening(series: Sequence[Series]) -> list[tuple[Series, bool]]:
    return [(one, place == 0 or series[place - 1].arm != one.arm) for place, one in enumerate(series)]


def at_a_glance(shown: RunsShown, most: int = 8) -> list[tuple[str, Any, list[str]]]:
    """(arm, its style, its win rate in every run) of the arms that some run judged."""
    rates = {(one.arm, one.label): percent(one.row.win_rate) for one in shown.series if one.row.win_rate is not None}
    judged = [arm for arm in shown.compared.arms if any((arm, label) in rates for label in shown.compared.labels)]
    return [
        (arm, shown.styles[arm], [rates.get((arm, label), MISSING) for label in shown.compared.labels]) for arm in judged[:most]
    ]


@dataclass(frozen=True, slots=True)
class ValueRow:
    """A name, its value in every run, and a remark; "" where there is nothing to remark."""

    name: str
    values: tuple[str, ...]
    remark: str = ""


def evaluation_rows(shown: RunsShown) -> list[ValueRow]:
    """Other evaluations by arm: rate, and the difference to the run's own baseline with the interval of its verdict."""
    runs = shown.compared.runs
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run.results.evaluations):
        asked = [(run.effective.get("evaluations") or {}).get(name) for run in runs if name in run.results.evaluations]
        remark = "" if all(entry == asked[0] for entry in asked) else "set otherwise: not comparable"
        for arm in shown.compared.arms:
            cells = tuple(_evaluated(run, name, arm) for run in runs)
            if any(cell != MISSING for cell in cells):
                rows.append(ValueRow(f"{name}: {arm}", cells, remark))
    return rows


def _evaluated(run: OpenedRun, name: str, arm: str) -> str:
    found = run.results.evaluations[name].arms.get(arm) if name in run.results.evaluations else None
    if found is None or found.rate is None:
        return MISSING
    if found.difference is None:
        return percent(found.rate)
    gap = f"{points(found.difference)}, {points_interval(found.ci95_simultaneous or found.ci95_difference)}"
    return f"{percent(found.rate)} ({gap}: {found.verdict})"


def reward_model_rows(shown: RunsShown) -> list[ValueRow]:
    """Held-out accuracy of every reward model, and whether the runs have the very same one."""
    runs = shown.compared.runs
    same = {stage.name: stage.same for stage in shown.compared.settings.stages}
    words = {True: "the same weights", False: "other weights", None: ""}
    names = dict.fromkeys(name for run in runs for name in run.results.reward_models)
    return [
        ValueRow(name, tuple(_accuracy(run, name) for run in runs), words[same.get(f"reward_models/{name}")]) for name in names
    ]


def _accuracy(run: OpenedRun, name: str) -> str:
    found = run.results.reward_models.get(name)
    if found is None or found.accuracy is None:
        return MISSING
    return f"{percent(found.accuracy)} ({interval(found.ci95)})" if found.ci95 is not None else percent(found.accuracy)


@dataclass(frozen=True, slots=True)
class CostTable:
    """What one seed cost, a row per arm and run; `whole` says what the stages of every run took in all."""

    units: tuple[Unit, ...]
    rows: tuple[tuple[Series, bool, tuple[str, ...]], ...]
    whole: tuple[str, ...]


def cost_table(shown: RunsShown) -> CostTable | None:
    """None where no run recorded a cost."""
    costs = {label: _costs(shown, label) for label in shown.compared.labels}
    rows = [one for one in shown.series if any(is_number(v) and v > 0 for v in costs[one.label].get(one.arm, {}).values())]
    units = [u for u in (STEPS, *COUNTS, SPEED) if any(is_number(costs[r.label][r.arm].get(u.key)) for r in rows)]
    if not rows:
        return None
    table = tuple((r, first, tuple(u.shown(costs[r.label][r.arm].get(u.key)) for u in units)) for r, first in _opening(rows))
    return CostTable(tuple(units), table, tuple(text for run in shown.compared.runs if (text := whole(run))))


def _costs(shown: RunsShown, label: str) -> dict[str, dict[str, float | None]]:
    run, summary = shown.data[label], shown.summaries[label]
    found = spent_by_arm(summary, run.ledgers, run.experiment, run.curves)
    for arm, costs in found.items():
        costs[STEPS.key] = _steps(run.curves.get(arm, {}))
    return found


def _steps(seeds: Mapping[str, Sequence[Mapping[str, Any]]]) -> float | None:
    """Steps of one seed, as a mean over them."""
    last = [max(row["step"] for row in rows if "step" in row) for rows in seeds.values() if any("step" in row for row in rows)]
    return sum(last) / len(last) if last else None


def whole(run: OpenedRun) -> str:
    """What all stages of a run took, those included that another run had made before; "" where nothing is known."""
    known = [took for key in run.keys.values() if (took := spent.read(run.store, key)) is not None]
    if not known:
        return ""
    of = f" ({len(known)} of {len(run.keys)} are known)" if len(known) < len(run.keys) else ""
    return f"{run.label}: {len(run.keys)} stages took {duration(sum(took.seconds for took in known))} in all{of}"
