"""The judge's self-test, before anyone believes its verdicts: pairs made of the data's own answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from evenhand.data.jsonl import read_groups
from evenhand.judges import self_test
from evenhand.stages.common import begin, write_json
from evenhand.stages.context import StageContext
from evenhand.stages.judge import JudgedBy, open_judge
from evenhand.stages.setup import Setup
from evenhand.types import Completion, Group, Prompt

SOURCES = ("heldout_demonstrations", "demonstrations", "heldout_preferences", "preferences")


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeSelfTestSpec:
    """`judge` on pairs made of `prompts` known answers."""

    KIND: ClassVar[str] = "judge_self_test"
    VERSION: ClassVar[int] = 2

    judge: JudgedBy
    prompts: int
    setup: Setup


def run(spec: JudgeSelfTestSpec, context: StageContext) -> None:
    device = begin(spec.setup.compute)
    source, answers = known_answers(context.inputs, spec.prompts)
    judge = open_judge(spec.judge, context, spec.setup, device)
    found = self_test(judge, answers, context.report)
    write_json(context.out / "self_test.json", {**found, "source": source, "revision": judge.revision})


def known_answers(inputs: Mapping[str, Path], count: int) -> tuple[str, list[tuple[Prompt, Completion]]]:
    """Good answers of the data, different texts only: demonstrations, else preferred answers, else the baseline's own."""
    for split in SOURCES:
        path = inputs["data"] / f"{split}.jsonl"
        if path.exists() and (rows := _best(read_groups(path), count)):
            return split, rows
    return "the baseline's answers", _best(read_groups(inputs["answers"] / "generations.jsonl"), count)


def _best(groups: list[Group], count: int) -> list[tuple[Prompt, Completion]]:
    rows: dict[str, tuple[Prompt, Completion]] = {}
    for group in groups:
        if not group.completions:
            continue
        best = max(range(len(group.completions)), key=lambda i: group.scores[i])
        rows.setdefault(group.completions[best].text, (group.prompt, group.completions[best]))
        if len(rows) == count:
            break
    return list(rows.values())
