"""Who judges, and what an experiment may ask of its arms besides: other prompts, other judges, benchmarks, tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from evenhand.judges.config import Comparing
from evenhand.judges.jury import Rule
from evenhand.train.config import SamplingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class MoreEvaluation:
    """One more evaluation of every arm: prompts of a file, a benchmark or a world under a judge, or a task of
    lm-evaluation-harness."""

    prompts: str | Mapping[str, Any] | None = None
    """Where the prompts come from: a path, a Hub name, or a mapping; for a benchmark the file of its questions."""
    benchmark: str | None = None
    """A registered benchmark (alpaca_eval, arena_hard, mt_bench, or a plugin's) that reads the questions in `prompts`."""
    world: str | None = None
    """A built-in world whose held-out prompts are asked."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The world's own task options."""
    task: str | None = None
    """A task of lm-evaluation-harness, such as gsm8k (`pip install 'evenhand[eval]'`)."""
    count: int = 200
    """Prompts, or items of a task, at most."""
    judge: ScoringJudge | Comparing | JurySettings | None = None
    """Who compares these answers with the baseline's; by default the experiment's judge."""
    sampling: SamplingConfig | None = None
    """How these answers are sampled; by default as in `evaluation`."""
    completion: int | None = None
    """Longest answer; by default the experiment's. In tokens."""
    shots: int | None = None
    """Examples in a task's prompt; by default the literature's."""
    chat_template: bool = False
    """Whether a task is asked through the chat template."""
    include: str | None = None
    """A folder of own task files."""


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
