"""What a trial gave: its value on the validation prompts with an interval, and which trials cannot be told from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evenhand.plan.graph import Node
from evenhand.results.comparison import COUNTS
from evenhand.spec.tuning import MeanReward, Tune
from evenhand.stats.tests import holm
from evenhand.stats.twoway import paired_difference, win_rate
from evenhand.store.store import Store
from evenhand.tuning.trials import Trial

DONE, FAILED, OPEN = "done", "failed", "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """A finished trial: `value` (higher is better) with its 95% interval, None where it failed; `table` [seeds, prompts]."""

    trial: Trial
    status: str
    error: str = ""
    value: float | None = None
    ci95: tuple[float, float] | None = None
    table: np.ndarray | None = None
    ledger: Mapping[str, float] | None = None


def measured(trial: Trial, tune: Tune, nodes: Mapping[str, Node], store: Store) -> TrialOutcome:
    """A trial whose verdicts are in the store. A reward that gives no number for an answer fails the trial."""
    field = "gold" if isinstance(tune.objective, MeanReward) else "outcome"
    rows = [store.read_json(nodes[name].key, "verdicts.json")[field] for name in trial.verdicts.values()]
    table = np.array(rows, dtype=float)
    ledger = _ledger(trial, nodes, store)
    if missing := int((~np.isfinite(table)).sum()):
        error = f"{tune.measure}: no number for {missing} of {table.size} answers"
        return TrialOutcome(trial=trial, status=FAILED, error=error, ledger=ledger)
    if isinstance(tune.objective, MeanReward):
        mean = paired_difference(table, np.zeros_like(table))
        value, interval = mean.estimate, mean.ci95
    else:
        rate = win_rate(table)
        value, interval = rate.estimate, rate.ci95
    low, high = interval
    return TrialOutcome(trial=trial, status=DONE, value=value, ci95=(float(low), float(high)), table=table, ledger=ledger)


def worst(outcomes: Sequence[TrialOutcome], tune: Tune) -> float:
    """The value that a failed trial counts as: no win at all, or the lowest mean reward of any trial."""
    known = [o.value for o in outcomes if o.value is not None]
    return min(known, default=0.0) if isinstance(tune.objective, MeanReward) else 0.0


def best(outcomes: Sequence[TrialOutcome]) -> TrialOutcome | None:
    """The trial with the highest value, the earliest among equals; None where all failed."""
    done = [o for o in outcomes if o.value is not None]
    return max(done, key=lambda o: (o.value, -o.trial.number)) if done else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """How far a trial lies behind the best one: the paired difference, and its p-value after Holm's correction."""

    difference: float
    ci95: tuple[float, float]
    p_holm: float

    @property
    def told_apart(self) -> bool:
        return self.p_holm < 0.05


def behind(outcomes: Sequence[TrialOutcome], chosen: TrialOutcome) -> dict[int, Behind]:
    """Every other finished trial against the chosen one, on the same prompts and seeds, by its number."""
    assert chosen.table is not None, "what was chosen has finished"
    others = [(o, o.table) for o in outcomes if o.table is not None and o.trial.number != chosen.trial.number]
    found = [paired_difference(table, chosen.table) for _, table in others]
    adjusted = holm([d.p for d in found])
    return {
        o.trial.number: Behind(difference=d.estimate, ci95=(float(d.ci95[0]), float(d.ci95[1])), p_holm=p)
        for (o, _), d, p in zip(others, found, adjusted, strict=True)
    }


def _ledger(trial: Trial, nodes: Mapping[str, Node], store: Store) -> dict[str, float]:
    """What training cost, over all seeds; seconds stay out, since they differ from run to run."""
    rows = [store.read_json(nodes[name].key, "ledger.json") for name in trial.fits.values()]
    return {count: sum(row[count] for row in rows) for count in COUNTS}
