"""What an experiment file says about its data. Read as it is by the stage that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    """A built-in world that makes its own data: quickstart, countdown or arithmetic."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Rows of each split of a world."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The world's own task options."""
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
