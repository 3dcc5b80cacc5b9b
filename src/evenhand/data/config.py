"""What an experiment file says about its data. Read as it is by the stage that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TRAINED = ("prompts", "preferences", "demonstrations")
FOR_JUDGES = "judge_preferences"
"""The split that `judge_share` sets apart: pairs for a reward model that judges, from which no arm learns."""
SPLITS = (*TRAINED, "heldout_preferences", "heldout_prompts")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where rows come from: a built-in `world` with `sizes` and its task's `options`, or a source per split (a path, a hub name,
    or a mapping).
    """

    world: str | None = None
    """A built-in world that makes its own data: quickstart, countdown, arithmetic or refusals."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Rows of each split of a world."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The world's own task options."""
    annotator: Mapping[str, float] = field(default_factory=dict)
    """How the world's annotator differs from its usual self: temperature, bias_per_word, flip."""
    demonstrations: str | Mapping[str, Any] | None = None
    """Rows with one good answer each, for SFT: a path, a Hub name, or a mapping."""
    preferences: str | Mapping[str, Any] | None = None
    """Rows with answers that are ranked, for reward models and preference losses."""
    prompts: str | Mapping[str, Any] | None = None
    """Prompts for methods that sample; by default those of the other splits."""
    heldout_preferences: str | Mapping[str, Any] | None = None
    """Pairs that reward models are tested on; by default a share of `preferences`."""
    heldout_prompts: str | Mapping[str, Any] | None = None
    """Prompts that the comparison asks; by default a share of the training prompts."""
    holdout: float = 0.1
    """Share of prompts that is set apart where no held-out split is named."""
    judge_share: float = 0.0
    """Share of the pairs that no arm learns from: they are for a reward model that judges (`data: judge_preferences`)."""
    seed: int = 0
    """Draws a world's data, and the held-out prompts."""
    supervise: str = "completion"
    """Which tokens of a conversation SFT learns: completion (the last answer), assistant (all of them) or full."""

    @property
    def sources(self) -> dict[str, str | Mapping[str, Any]]:
        """The splits that are read from somewhere, in the order of SPLITS."""
        named = {
            "prompts": self.prompts, "preferences": self.preferences, "demonstrations": self.demonstrations,
            "heldout_preferences": self.heldout_preferences, "heldout_prompts": self.heldout_prompts,
        }  # fmt: skip
        return {split: source for split, source in named.items() if source}


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """One more split of the data, for `data:` of an arm or a reward model: of a `source`, or made by the experiment's world.

    A world's split of `count` rows is about the same requests as its usual one, so that only what is named here differs.
    """

    source: str | Mapping[str, Any] | None = None
    """Where its rows come from: a path, a Hub name, or a mapping; in place of a world's `rows`."""
    rows: Literal["demonstrations", "preferences", "prompts"] | None = None
    """What the world makes: demonstrations, preferences or prompts."""
    count: int = 2000
    """How many of them."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the world's task options, such as the writer's skill."""
    annotator: Mapping[str, float] = field(default_factory=dict)
    """What differs from the annotator of `data`: temperature, bias_per_word, flip."""
