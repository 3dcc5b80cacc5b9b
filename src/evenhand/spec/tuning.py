"""What an experiment file may say about tuning: the budget that every arm gets alike, and what an earlier tuning has chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRange:
    """A range of numbers, both ends included: `log` (even in the logarithm) or `linear`. `points` are a grid's."""

    log: tuple[float, float] | None = None
    """Lower and upper end, even in the logarithm."""
    linear: tuple[float, float] | None = None
    """Lower and upper end, even as they are."""
    points: int | None = None
    """How many values a grid takes from it."""

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end."""
        found = self.log or self.linear
        assert found is not None, "checked by `search_spaces.problems`"
        return found


Dimension = tuple[Any, ...] | SearchRange
"""What one setting may be: one of several values, or a number in a range."""
Space = Mapping[str, Dimension]
"""Setting -> what it may be. A setting is `learning_rate`, `train.NAME`, or a parameter of the arm's method."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanReward:
    """Trials are ranked by the mean of this reward over the validation prompts."""

    reward: str | Mapping[str, Any]
    """The reward whose mean over validation prompts ranks the trials."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tune:
    """The tuning budget, the same for every arm that trains."""

    trials: int = 8
    """Settings that are tried for each arm."""
    seeds: tuple[int, ...] = (100,)
    """Seeds that trials are trained under; the comparison uses none of them."""
    prompts: int = 100
    """Validation prompts that trials are ranked on; nothing trains on them and no report judges by them."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """How settings are proposed."""
    objective: Literal["win_rate"] | MeanReward = "win_rate"
    """What ranks trials: the win rate over the baseline, or {reward: NAME}."""
    steps: float = 1.0
    """Share of an arm's own training budget that a trial gets."""
    space: Mapping[str, Dimension] | None = None
    """Settings to tune and their values, for every arm; by default each method's own (docs/tuning.md)."""
    arms: Mapping[str, Mapping[str, Dimension | None]] = field(default_factory=dict)
    """What one arm has more or otherwise: null takes a setting out, {} leaves the arm untuned."""

    @property
    def measure(self) -> str:
        """What trials are ranked by, in words."""
        if isinstance(self.objective, MeanReward):
            named = self.objective.reward
            return f"mean reward ({named if isinstance(named, str) else named.get('kind', 'combined')})"
        return "win rate over the baseline"


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedArm:
    """How one arm came by its settings: `trial` of `trials` had the best `value`; `alike` others cannot be told from it."""

    trials: int
    """Settings that were tried."""
    failed: int = 0
    """Trials that failed."""
    trial: int
    """The number of the best."""
    settings: Mapping[str, Any]
    """What it was."""
    space: Mapping[str, Dimension]
    """What was searched."""
    value: float
    """Its measure."""
    ci95: tuple[float, float]
    """With its 95% interval."""
    as_given: float | None = None
    """The measure of the settings that the file had."""
    alike: int = 0
    """Trials that cannot be told from the best."""
    edges: tuple[str, ...] = ()
    """Settings that ended at an edge of the space."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What `evenhand tune` has chosen and how: it writes this section, the report shows it. `validation` names the prompts."""

    measure: str
    """What trials were ranked by."""
    sampler: str
    """How settings were proposed."""
    seeds: tuple[int, ...]
    """Seeds of the trials."""
    prompts: int
    """Validation prompts."""
    steps: float = 1.0
    """Share of the training budget."""
    validation: str = ""
    """Names the validation prompts."""
    arms: Mapping[str, TunedArm] = field(default_factory=dict)
    """What was chosen for each arm, and how."""
