"""The evaluations beside the comparison: rates, differences from the baseline, one correction over all of them; pass@k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evenhand.errors import UserError
from evenhand.evaluation.outcomes import by_question
from evenhand.judges.config import LLM, Human, OwnJudge
from evenhand.results.files import carried
from evenhand.results.paths import without_folders
from evenhand.results.record_parts import EvaluatedArm, EvaluationResult, PassRate
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.spec.evaluations import JurySettings, ScoringJudge
from evenhand.stats.family import Judged
from evenhand.stats.pass_at_k import pass_at_k
from evenhand.stats.twoway import Difference, paired_difference, win_rate

WIN_RATE = "win rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadEvaluation:
    """What has finished of an evaluation: `rows[arm][seed]`, and the difference of every arm that the baseline pairs with."""

    name: str
    rows: Mapping[str, Mapping[int, Mapping[str, Any]]]
    differences: Mapping[str, Difference]


def read_evaluations(done: RunArtifacts) -> list[ReadEvaluation]:
    """Every evaluation of the plan with what there is of it. A judge that failed its self-test has no verdicts."""
    found = []
    for name, planned in done.plan.evaluations.items():
        trusted = planned.judge_test is None or done.has(planned.judge_test)
        rows = {
            arm: {s: done.load(node, "verdicts.json") for s, node in seeds.items() if trusted and done.has(node)}
            for arm, seeds in planned.verdicts.items()
        }
        base = rows.get(done.baseline, {})
        shared = {arm: [s for s in own if s in base] for arm, own in rows.items() if arm != done.baseline}
        gaps = {a: paired_difference(_table(rows[a], seeds), _table(base, seeds)) for a, seeds in shared.items() if seeds}
        found.append(ReadEvaluation(name=name, rows=rows, differences=gaps))
    return found


def _table(rows: Mapping[int, Mapping[str, Any]], seeds: Sequence[int]) -> np.ndarray:
    return np.array([outcomes_of(rows[s]) for s in seeds])


def outcomes_of(row: Mapping[str, Any]) -> np.ndarray:
    """The outcomes by prompt; the turns of a question, which are one cluster, by their mean.

    >>> outcomes_of({"outcome": [1.0, 0.0, 1.0], "cluster": ["81", "81", "82"]}).tolist()
    [0.5, 1.0]
    """
    return by_question(row["outcome"], row["cluster"]) if "cluster" in row else np.array(row["outcome"], dtype=float)


def evaluation_results(
    done: RunArtifacts, read: Sequence[ReadEvaluation], judged: Sequence[Judged]
) -> dict[str, EvaluationResult]:
    """The evaluations as the record has them; `judged` are the verdicts on all their differences, in their order."""
    verdicts = iter(judged)
    found = {}
    for one in read:
        told = {arm: next(verdicts) for arm in one.differences}
        first = next((row for seeds in one.rows.values() for row in seeds.values()), None)
        found[one.name] = EvaluationResult(
            measure=str(first.get("metric", WIN_RATE)) if first is not None else WIN_RATE, judge=_judge(done, one.name),
            n_prompts=len(outcomes_of(first)) if first is not None else None,
            contrasts=next(iter(told.values())).contrasts if told else None,
            arms={arm: _arm(done, one, arm, told.get(arm)) for arm in one.rows},
        )  # fmt: skip
    return found


def _arm(done: RunArtifacts, one: ReadEvaluation, arm: str, judged: Judged | None) -> EvaluatedArm:
    seeds = tuple(one.rows[arm])
    if not seeds:
        return EvaluatedArm()
    task = done.plan.experiment.evaluations[one.name].task is not None
    if arm == done.baseline and not task:
        return EvaluatedArm(rate=0.5, verdict="baseline", seeds=seeds)
    rate = win_rate(_table(one.rows[arm], seeds))
    row = EvaluatedArm(rate=rate.estimate, ci95=rate.ci95, seeds=seeds)
    if judged is None:
        return replace(row, verdict="baseline") if arm == done.baseline else row
    gap = one.differences[arm]
    return carried(
        EvaluatedArm, judged, rate=row.rate, ci95=row.ci95, seeds=seeds, difference=gap.estimate, ci95_difference=gap.ci95
    )


def _judge(done: RunArtifacts, name: str) -> str | None:
    asked = done.plan.experiment.evaluations[name]
    if asked.task is not None:
        return None
    judge = asked.judge or done.plan.experiment.judge
    if isinstance(judge, JurySettings):
        return "jury of " + ", ".join(judge.judges)
    if isinstance(judge, ScoringJudge):
        return judge.reward if isinstance(judge.reward, str) else str(judge.reward.get("kind"))
    if isinstance(judge, Human):
        return "people"
    called = judge.model if isinstance(judge, LLM) else judge.judge if isinstance(judge, OwnJudge) else judge.path
    return without_folders(called)


def pass_rates(done: RunArtifacts, arm: str) -> tuple[PassRate, ...]:
    """pass@k over the seeds that were sampled; intervals are over seeds and prompts."""
    nodes = [node for node in done.plan.passes.get(arm, {}).values() if done.has(node)]
    asked = done.plan.experiment.evaluation
    if not nodes:
        return ()
    right = np.array([_right(done.load(node, "scores.json")["gold"]) for node in nodes])
    solved = {k: win_rate(pass_at_k(right, asked.pass_answers, k)) for k in asked.pass_at}
    return tuple(PassRate(k=k, rate=s.estimate, ci95=s.ci95, answers=asked.pass_answers) for k, s in solved.items())


def _right(scores: list[list[float | None]]) -> list[int]:
    """How many answers to each prompt are right; an answer without a score is not."""
    known = {x for row in scores for x in row if x is not None}
    if not known <= {0.0, 1.0}:
        raise UserError(
            f"a score of {min(known - {0.0, 1.0}):g} is neither right nor wrong", where="evaluation.pass_at",
            fix="judge by a reward of 1 and 0, or remove `pass_at`",
        )  # fmt: skip
    return [sum(x == 1.0 for x in row) for row in scores]
