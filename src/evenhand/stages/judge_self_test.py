"""The judge's self-test, before anyone believes its verdicts: pairs made of the data's own answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from evenhand.data.jsonl import read_groups
from evenhand.judges import Judge, self_test
from evenhand.judges.config import OwnJudge
from evenhand.judges.fields import fields_judged_by
from evenhand.judges.selftest import refuse_failed
from evenhand.rewards.fields import having
from evenhand.stages.common import begin
from evenhand.stages.context import StageContext
from evenhand.stages.judge import JudgedBy, ScoredBy, open_judge
from evenhand.stages.setup import Setup
from evenhand.store.whole import write_json
from evenhand.types import Completion, Group, Prompt

SOURCES = ("heldout_demonstrations", "demonstrations", "heldout_preferences", "preferences")


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeSelfTestSpec:
    """`judge` on pairs made of `prompts` known answers. A judge that fails ends the run before any verdict."""

    KIND: ClassVar[str] = "judge_self_test"
    VERSION: ClassVar[int] = 4

    judge: JudgedBy
    prompts: int
    setup: Setup


def run(spec: JudgeSelfTestSpec, context: StageContext) -> None:
    device = begin(spec.setup.compute)
    judge = open_judge(spec.judge, context, spec.setup, device)
    source, answers = known_answers(context.inputs, spec.prompts, judge)
    found = self_test(judge, answers, context.report)
    write_json(context.out / "self_test.json", {**found, "source": source, "revision": judge.revision})
    if _refused(spec.judge, found):
        refuse_failed(found, judge.name, way="with `judge: {self_test: 0}` it judges all the same")


def _refused(by: JudgedBy, found: Mapping[str, Any]) -> bool:
    """Whether the run must end: a program may care for form alone, such as length, and find no fault with ruined answers."""
    if by.members and "members" in found:
        return any(_refused(member, found["members"][name]) for name, member in by.members.items())
    return found["passed"] is False and (found.get("broken", False) or not isinstance(by.settings, ScoredBy | OwnJudge))


def known_answers(inputs: Mapping[str, Path], count: int, judge: Judge) -> tuple[str, list[tuple[Prompt, Completion]]]:
    """Good answers of the data, different texts only: demonstrations, else preferred answers, else the baseline's own.

    Only answers to prompts that have the fields that the judge reads of those that it will judge: a program that checks an answer
    by them could make nothing of answers to other data's prompts.
    """
    compared = read_groups(inputs["answers"] / "generations.jsonl")
    fields = fields_judged_by(judge, compared)
    for split in SOURCES:
        path = inputs["data"] / f"{split}.jsonl"
        if path.exists() and (rows := _best(having(read_groups(path), fields), count)):
            return split, rows
    return "the baseline's answers", _best(compared, count)


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
