"""What an experiment may ask of its arms beside the comparison: other prompts, other judges, benchmarks, tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evenhand.judges.config import Comparing
from evenhand.spec.judge import JurySettings, ScoringJudge
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
