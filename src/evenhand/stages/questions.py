"""The questions of a benchmark as held-out prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from evenhand.data.jsonl import write_groups
from evenhand.stages.context import StageContext
from evenhand.stages.data import bare
from evenhand.store.whole import write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionsSpec:
    """The first `count` questions of `benchmark` in the file `path`, whose bytes have the name `fingerprint`."""

    KIND: ClassVar[str] = "questions"
    VERSION: ClassVar[int] = 1

    benchmark: str
    path: str
    fingerprint: str
    count: int


def run(spec: QuestionsSpec, context: StageContext) -> None:
    from evenhand.evaluation.benchmarks import questions_of

    asked = questions_of(spec.benchmark, spec.path)[: spec.count]
    write_groups(context.out / "heldout_prompts.jsonl", bare(asked))
    said = [f"{spec.benchmark}: {Path(spec.path).name}"]
    write_json(context.out / "description.json", {"splits": {"heldout_prompts": len(asked)}, "sources": said})
