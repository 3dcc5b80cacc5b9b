"""Every answer against the baseline's answer to the same prompt, by one judge that sees neither name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from evenhand.data.jsonl import read_groups
from evenhand.engines.registry import for_other_models
from evenhand.evaluation.conversations import as_judged, in_conversation
from evenhand.judges import JUDGES, Judge, JudgeContext, RewardJudge, Verdict, account, paired
from evenhand.judges.agreement import by_length
from evenhand.judges.config import LLM, Comparing, Human, OwnJudge, build
from evenhand.judges.human import HumanJudge
from evenhand.judges.jury import Jury, Rule
from evenhand.judges.selftest import refuse_broken
from evenhand.protocols import Reward
from evenhand.stages.common import begin, build_reward, open_judging_model
from evenhand.stages.context import StageContext
from evenhand.stages.setup import Setup
from evenhand.store.whole import write_json
from evenhand.types import Group

CACHE = "judge-cache.jsonl"
"""Beside the artifacts: what judging models said, shared by every stage and run of this store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredBy:
    """A resolved reward scores both answers; `tie` apart is a tie."""

    kind: Literal["reward"] = "reward"
    reward: Mapping[str, Any]
    tie: float = 1e-9

    @property
    def name(self) -> str:
        return str(self.reward.get("name") or self.reward.get("world") or self.reward["kind"])


@dataclass(frozen=True, kw_only=True, slots=True)
class JuryRule:
    """How the verdicts of `JudgedBy.members` become one: see `evenhand.judges.jury.Jury`."""

    kind: Literal["jury"] = "jury"
    by: Rule = "majority"


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedBy:
    """Who compares answers, and what was found of it when the run was planned: its template, its weights; or a jury's members."""

    settings: ScoredBy | Comparing | JuryRule
    template_sha: str = ""
    fingerprint: str | None = None
    members: Mapping[str, JudgedBy] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeSpec:
    """The input `answers` against `baseline`."""

    KIND: ClassVar[str] = "judge"
    VERSION: ClassVar[int] = 4

    judge: JudgedBy
    setup: Setup


def run(spec: JudgeSpec, context: StageContext) -> None:
    device, inputs = begin(spec.setup.compute), context.inputs
    given, other = (read_groups(inputs[role] / "generations.jsonl") for role in ("answers", "baseline"))
    answers, baseline = as_judged(given), as_judged(other)
    comparisons = paired(answers, baseline)
    judge = open_judge(spec.judge, context, spec.setup, device)
    verdicts = judge(comparisons, context.report)
    refuse_broken(verdicts, judge.name)
    found = {
        "prompt_id": [g.prompt.id for g in answers],
        "gold": numbers([v.score_a for v in verdicts]),
        "baseline_gold": numbers([v.score_b for v in verdicts]),
        "outcome": [v.outcome for v in verdicts],
        "invalid": [v.invalid for v in verdicts],
        "orders": [shown(v) for v in verdicts],
        "account": {**account(verdicts), **by_length(verdicts, comparisons)},
    }
    votes = [v.to_json().get("votes") for v in verdicts]
    if all(in_conversation(g.prompt) for g in given):
        found["cluster"] = [g.prompt.meta["cluster"] for g in given]
    write_json(context.out / "verdicts.json", found | ({"votes": votes} if any(votes) else {}))


def open_judge(by: JudgedBy, context: StageContext, setup: Setup, device: str) -> Judge:
    """The judge that is meant: a language model of `evenhand.judges.config`, else a reward."""
    settings = by.settings
    if isinstance(settings, JuryRule):
        return Jury({name: open_judge(one, context, setup, device) for name, one in by.members.items()}, by=settings.by)
    if isinstance(settings, ScoredBy):
        from evenhand.rewards.tournament import Tournament

        reward = build_reward(settings.reward, context.inputs, setup, device)
        if isinstance(reward, Tournament):
            return reward.judge  # which compares the two answers themselves
        return RewardJudge(reward, name=settings.name, tie=settings.tie)
    if isinstance(settings, OwnJudge):
        own: Judge = JUDGES.build(settings.builder, JudgeContext(device=device, folder=context.out.parent), where="judge")
        return own
    if isinstance(settings, Human):
        return HumanJudge(Path(settings.labels), settings.annotators)
    opened = None if isinstance(settings, LLM) else open_judging_model(settings.path, setup.compute, device)
    cache, weights = context.out.parent / CACHE, by.fingerprint or ""
    return build(settings, cache=cache, opened=opened, weights=weights, engine=for_other_models(setup.compute.sampler))


def scores(reward: Reward, groups: Sequence[Group]) -> list[float]:
    """The reward of the one answer of each group."""
    return [s.values[0] for s in reward(groups)]


def numbers(values: Sequence[float]) -> list[float | None]:
    """NaN, which JSON lacks, as null."""
    return [None if math.isnan(v) else v for v in values]


def shown(verdict: Verdict) -> list[dict[str, Any]]:
    """What a reader wants to see of a verdict's orders; nothing for scores, which have no order."""
    rows = verdict.to_json()["orders"] if len(verdict.orders) > 1 else []
    return [{k: row[k] for k in ("a_first", "outcome", "status", "label", "raw")} for row in rows]
