"""Every arm's trials while they run: which are known, what they gave, which come next. Rebuilt from the store at every start."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.plan.graph import Node
from evenhand.results.comparison import COUNTS
from evenhand.results.tuning_record import BehindBest
from evenhand.runner.state import RunState, StageStatus
from evenhand.spec import search_spaces
from evenhand.spec.experiment import Experiment
from evenhand.spec.tuning import MeanReward, Tune
from evenhand.stats.tests import holm
from evenhand.stats.twoway import paired_difference, win_rate
from evenhand.store.store import Store
from evenhand.tuning.ask import ask, blind
from evenhand.tuning.trials import Nodes, Settings, Trial, planned

KINDS = ("fit", "generate", "judge")
"""What a trial that is not known yet will run, for each seed."""


class Study:
    """The trials of all arms. Called by the runner whenever a node has ended, it names the nodes that come next.

    A trial of TPE is asked for when all earlier ones of its arm have ended, so that what is tried never depends on how fast
    other work is; the first half are drawn and known at once. An arm that starts from a tuned arm waits for that arm's choice.
    """

    def __init__(self, experiment: Experiment, store: Store) -> None:
        assert experiment.tune is not None
        self.experiment, self.tune, self.store = experiment, experiment.tune, store
        self.arms = experiment.all_arms()
        self.spaces = {name: found for name, arm in self.arms.items() if (found := search_spaces.space_of(arm, experiment))}
        self.nodes = Nodes()
        self.trials: dict[str, list[Trial]] = {name: [] for name in self.spaces}
        self._ended: dict[tuple[str, int], TrialOutcome] = {}

    def __call__(self, board: RunState) -> list[Node]:
        new: list[Node] = []
        for arm in self.spaces:
            while (settings := self.next_settings(arm, board)) is not None:
                new += self.plan(arm, settings, self.choices(board))
        left = sum(self.tune.trials - len(trials) for trials in self.trials.values()) * len(self.tune.seeds)
        board.coming = dict.fromkeys(KINDS, left) if left else {}
        return new

    def plan(self, arm: str, settings: Settings, chosen: Mapping[str, Settings]) -> list[Node]:
        """Adds a trial and returns its new nodes; settings that the method refuses together are a trial that failed."""
        number = len(self.trials[arm]) + 1
        try:
            trial, new = planned(self.experiment, arm, number, settings, chosen, self.nodes)
        except UserError as error:
            trial, new = Trial(arm=arm, number=number, settings=settings, fits={}, verdicts={}), []
            self._ended[arm, number] = TrialOutcome(trial=trial, status=FAILED, error=error.what)
        self.trials[arm].append(trial)
        return new

    def next_settings(self, arm: str, board: RunState) -> Settings | None:
        """What the arm tries next; None while that is not known, or when it has had its trials."""
        trials, space = self.trials[arm], self.spaces[arm]
        start = self.arms[arm].initial_policy
        waits = start in self.spaces and start not in self.experiment.stages() and self.outcomes(start, board) is None
        if len(trials) >= self.tune.trials or waits:
            return None
        tried = [t.settings for t in trials]
        if not tried and self.tune.sampler != "grid" and (first := self.as_given(arm)) is not None:
            return first
        if self.tune.sampler != "tpe" or len(tried) < blind(self.tune.trials):
            return ask(self.tune, space, [], tried, arm)
        ended = [self.outcome(t, board) for t in trials]
        if any(o.status == OPEN for o in ended):
            return None
        low = worst(ended, self.tune)
        history = [(o.trial.settings, low if o.value is None else o.value) for o in ended]
        return ask(self.tune, space, history, tried, arm)

    def as_given(self, arm: str) -> dict[str, Any] | None:
        """The arm's settings as the file has them, which are tried first; None where they lie outside its space."""
        given = search_spaces.given(self.arms[arm], self.experiment, self.spaces[arm])
        return given if all(search_spaces.inside(value, self.spaces[arm][name]) for name, value in given.items()) else None

    def outcome(self, trial: Trial, board: RunState) -> TrialOutcome:
        """How a trial ended, if it did."""
        known = (trial.arm, trial.number)
        if known not in self._ended:
            cells = [board.cells[name] for name in trial.verdicts.values() if name in board.cells]
            lost = [c for c in cells if c.status.lost]
            if lost:
                self._ended[known] = TrialOutcome(trial=trial, status=FAILED, error=_cause(board, lost[0].node.name))
            elif len(cells) == len(trial.verdicts) and all(c.status.good for c in cells):
                self._ended[known] = measured(trial, self.tune, self.nodes.by_name, self.store)
            else:
                return TrialOutcome(trial=trial, status=OPEN)
        return self._ended[known]

    def outcomes(self, arm: str, board: RunState) -> list[TrialOutcome] | None:
        """Every trial of an arm; None before all have ended."""
        ended = [self.outcome(t, board) for t in self.trials[arm]]
        return ended if len(ended) == self.tune.trials and all(o.status in (DONE, FAILED) for o in ended) else None

    def choices(self, board: RunState) -> Mapping[str, Settings]:
        """The chosen settings of the arms whose tuning is over."""
        found = {}
        for arm in self.spaces:
            chosen = best(ended) if (ended := self.outcomes(arm, board)) else None
            if chosen is not None:
                found[arm] = chosen.trial.settings
        return found


def _cause(board: RunState, name: str) -> str:
    """The error of the node that failed, for one that was blocked by it: what happened. The log has why, and where to look."""
    cell = board.cells[name]
    while cell.status is StageStatus.BLOCKED:
        lost = [board.cells[i] for i in cell.node.inputs.values() if board.cells[i].status.lost]
        if not lost:
            break
        cell = lost[0]
    what = re.split(r"; (?:why|fix): ", cell.error)[0]
    return f"{cell.node.name}: {what}"


def replayed(study: Study) -> RunState:
    """The study as far as finished artifacts carry it; nothing is run."""
    board = RunState(())
    while new := study(board):
        for node in new:
            board.add(node)
            if study.store.has(node.key):
                board.set(node.name, StageStatus.CACHED)
    return board


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


def behind(outcomes: Sequence[TrialOutcome], chosen: TrialOutcome) -> dict[int, BehindBest]:
    """Every other finished trial against the chosen one, on the same prompts and seeds, by its number."""
    assert chosen.table is not None, "what was chosen has finished"
    others = [(o, o.table) for o in outcomes if o.table is not None and o.trial.number != chosen.trial.number]
    found = [paired_difference(table, chosen.table) for _, table in others]
    adjusted = holm([d.p for d in found])
    return {
        o.trial.number: BehindBest(difference=d.estimate, ci95=(float(d.ci95[0]), float(d.ci95[1])), p_holm=p)
        for (o, _), d, p in zip(others, found, adjusted, strict=True)
    }


def _ledger(trial: Trial, nodes: Mapping[str, Node], store: Store) -> dict[str, float]:
    """What training cost, over all seeds; seconds stay out, since they differ from run to run."""
    rows = [store.read_json(nodes[name].key, "ledger.json") for name in trial.fits.values()]
    return {count: sum(row[count] for row in rows) for count in COUNTS}
