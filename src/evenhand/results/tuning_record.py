"""`tune.json` as a record: every trial of every arm, what was chosen, and how sure the choice is. No clock in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.results.files import parsed, read_json
from evenhand.results.record_judge import Pair

VERSION = 1
NAME = "tune.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BehindBest:
    """How far a trial is below the chosen one; `p_holm` over all trials of the arm."""

    difference: float
    ci95: Pair
    p_holm: float

    @property
    def told_apart(self) -> bool:
        return self.p_holm < 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial, counted from 1. `behind` is None for the chosen one and for a failed one."""

    trial: int
    settings: Mapping[str, Any]
    status: str
    error: str = ""
    value: float | None = None
    ci95: Pair | None = None
    behind: BehindBest | None = None
    ledger: Mapping[str, Any] | None = None
    keys: tuple[str, ...] = ()
    """Of the artifacts that it trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedArmRecord:
    """One arm's trials. `chosen` is the best trial's number, None where every trial failed; `alike` cannot be told from it."""

    method: str
    space: Mapping[str, Any]
    space_in_words: Mapping[str, str]
    given: Mapping[str, Any]
    given_tried: bool
    chosen: int | None = None
    settings: Mapping[str, Any] | None = None
    value: float | None = None
    ci95: Pair | None = None
    alike: tuple[int, ...] = ()
    edges: tuple[str, ...] = ()
    trials: tuple[TrialRecord, ...]

    @property
    def ranked(self) -> list[TrialRecord]:
        """Best first, those without a value last."""
        return sorted(self.trials, key=lambda t: (t.value is None, -(t.value or 0.0), t.trial))

    @property
    def failed(self) -> int:
        """How many trials gave no value."""
        return sum(t.status == "failed" for t in self.trials)

    @property
    def as_given(self) -> float | None:
        """What the settings reached that the experiment gives, if they were the first trial."""
        return self.trials[0].value if self.given_tried else None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBack:
    """What the comparison will use, and tuning does not."""

    seeds: tuple[int, ...]
    prompts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningRecord:
    """Everything a reader needs to judge a tuning. `left_out`: arms that were not tuned, each with the reason."""

    version: int = VERSION
    name: str
    description: str = ""
    source: str
    hashes: Mapping[str, str]
    versions: Mapping[str, Any] = field(default_factory=dict)
    measure: str
    baseline: str
    trials: int
    seeds: tuple[int, ...]
    prompts: int
    validation: str = ""
    sampler: str
    steps: float
    comparison: HeldBack
    arms: Mapping[str, TunedArmRecord]
    left_out: Mapping[str, str] = field(default_factory=dict)


def load(path: Path) -> TuningRecord:
    """Reads a `tune.json`. Raises: UserError where it is none."""
    return parsed(TuningRecord, read_json(path), where=str(path))
