"""The tables of the page: other evaluations, reward models and cost, the runs of an arm below each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evenhand.report.budget import COUNTS, SPEED, spent_by_arm
from evenhand.report.formatting import MISSING, amount, duration, is_number, percent, points, points_interval, rate
from evenhand.report.side_by_side.series import RunsShown, Series
from evenhand.report.summaries import Column
from evenhand.results.side_by_side.opened import OpenedRun
from evenhand.store import spent

STEPS = Column("steps", "Steps", amount)


class ValueRow(NamedTuple):
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
    gap = f"{points(found.difference)}, {points_interval(found.verdict_ci95)}"
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
    return MISSING if found is None else rate(found.accuracy, found.ci95)


class CostTable(NamedTuple):
    """What one seed cost, a row per arm and run; `whole` says what the stages of every run took in all."""

    units: tuple[Column, ...]
    rows: tuple[tuple[Series, tuple[str, ...]], ...]
    whole: tuple[str, ...]


def cost_table(shown: RunsShown) -> CostTable | None:
    """None where no run recorded a cost."""
    costs = {label: _costs(shown, label) for label in shown.compared.labels}
    rows = [one for one in shown.series if any(is_number(v) and v > 0 for v in costs[one.label].get(one.arm, {}).values())]
    units = [u for u in (STEPS, *COUNTS, SPEED) if any(is_number(costs[r.label][r.arm].get(u.key)) for r in rows)]
    if not rows:
        return None
    table = tuple((r, tuple(u.shown(costs[r.label][r.arm].get(u.key)) for u in units)) for r in rows)
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
