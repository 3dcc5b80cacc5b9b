"""Who judges, as an experiment file says it; language models as judges are in `evenhand.judges.config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evenhand.judges.config import Comparing
from evenhand.judges.jury import Rule


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringJudge:
    """Who compares two answers: a program or a reward model scores both, the higher wins. Language models as judges:
    `evenhand.judges.config`.
    """

    reward: str | Mapping[str, Any] = "gold"
    """A reward's name, a reward model's name, or a mapping {kind: ..., ...}; `gold` is a built-in world's own."""
    tie: float = 1e-9
    """Scores that differ by no more than this tie. In units of the reward."""
    self_test: int = 20
    """Prompts that the judge is tested with first; 0 leaves the test out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JurySettings:
    """Several judges; see `evenhand.judges.jury.Jury`."""

    kind: Literal["jury"]
    """jury: several judges together."""
    judges: Mapping[str, ScoringJudge | Comparing]
    """By a name of its own each, set up as it would be alone; the `self_test` of the jury holds for all."""
    by: Rule = "majority"
    """majority: the side that more judges prefer wins; mean: the mean of their outcomes. Who has no usable verdict abstains."""
    self_test: int = 20
    """Prompts that every judge is tested with first; 0 leaves the tests out."""
