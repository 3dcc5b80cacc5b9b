"""What an experiment file may say about tuning: the budget that every arm gets alike, and what an earlier tuning has chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A range of numbers, both ends included: `log` (even in the logarithm) or `linear`. `points` are a grid's."""

    log: tuple[float, float] | None = None
    linear: tuple[float, float] | None = None
    points: int | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end."""
        found = self.log or self.linear
        assert found is not None, "checked by `spaces.problems`"
        return found


Dimension = tuple[Any, ...] | Span
"""What one setting may be: one of several values, or a number in a range."""
Space = Mapping[str, Dimension]
"""Setting -> what it may be. A setting is `learning_rate`, `train.NAME`, or a parameter of the arm's method."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanReward:
    """Trials are ranked by the mean of this reward over the validation prompts."""

    reward: str | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tune:
    """The tuning budget, the same for every arm that trains: `trials` settings each, trained under `seeds`, none of which the
    comparison uses, and ranked on `prompts` validation prompts, which nothing trains on and no report judges by.

    `objective`: the win rate over the baseline as the file has it, by the experiment's judge, or `{reward: NAME}`. `steps` is
    the share of an arm's own training budget that a trial gets. `space` holds for every arm, `arms` says what one arm has more
    or otherwise (`null` takes a setting out; `{}` for an arm that is not to be tuned); without `space` each method has a
    default (docs/tuning.md).
    """

    trials: int = 8
    seeds: tuple[int, ...] = (100,)
    prompts: int = 100
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    objective: Literal["win_rate"] | MeanReward = "win_rate"
    steps: float = 1.0
    space: Mapping[str, Dimension] | None = None
    arms: Mapping[str, Mapping[str, Dimension | None]] = field(default_factory=dict)

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
    failed: int = 0
    trial: int
    settings: Mapping[str, Any]
    space: Mapping[str, Dimension]
    value: float
    ci95: tuple[float, float]
    as_given: float | None = None
    alike: int = 0
    edges: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What `evenhand tune` has chosen and how: it writes this section, the report shows it. `validation` names the prompts."""

    measure: str
    sampler: str
    seeds: tuple[int, ...]
    prompts: int
    steps: float = 1.0
    validation: str = ""
    arms: Mapping[str, TunedArm] = field(default_factory=dict)
