"""Which fields of a prompt a judge reads."""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.judges.human import HumanJudge
from evenhand.judges.jury import jurors, single
from evenhand.judges.llm import LLMJudge
from evenhand.judges.reward import RewardJudge
from evenhand.judges.verdict import Judge
from evenhand.rewards.fields import fields_read
from evenhand.types import Group


def fields_judged_by(judge: Judge, asked: Sequence[Group]) -> frozenset[str]:
    """The fields of the prompts of `asked` that their answers are judged by: what a reward reads, what a template takes its
    reference from, of a jury what any of its judges reads. A judge of the user's may read every field that all of them have."""
    found: set[str] = set()
    for member in map(single, jurors(judge).values()):
        if isinstance(member, RewardJudge):
            found |= fields_read(member.reward, asked)
        elif isinstance(member, LLMJudge):
            found |= {member.template.reference} if member.template.needs_reference else set()
        elif not isinstance(member, HumanJudge):
            found |= frozenset.intersection(*(frozenset(g.prompt.meta) for g in asked)) if asked else frozenset()
    return frozenset(found)
