"""What an experiment file says about its data. Read as it is by the stage that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TRAINED = ("prompts", "preferences", "demonstrations")
SPLITS = (*TRAINED, "heldout_preferences", "heldout_prompts")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where rows come from: a built-in `world` with `sizes` and its task's `options`, or a source per split (a path, a hub name,
    or a mapping).

    `holdout` is the share of prompts (and pairs) set apart for evaluation when no held-out split is named.
    """

    world: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    demonstrations: str | Mapping[str, Any] | None = None
    preferences: str | Mapping[str, Any] | None = None
    prompts: str | Mapping[str, Any] | None = None
    heldout_preferences: str | Mapping[str, Any] | None = None
    heldout_prompts: str | Mapping[str, Any] | None = None
    holdout: float = 0.1
    seed: int = 0
    supervise: str = "completion"

    @property
    def sources(self) -> dict[str, str | Mapping[str, Any]]:
        """The splits that are read from somewhere, in the order of SPLITS."""
        named = {
            "prompts": self.prompts, "preferences": self.preferences, "demonstrations": self.demonstrations,
            "heldout_preferences": self.heldout_preferences, "heldout_prompts": self.heldout_prompts,
        }  # fmt: skip
        return {split: source for split, source in named.items() if source}
