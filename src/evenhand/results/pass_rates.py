"""pass@k of every arm, from several scored answers per held-out prompt."""

from __future__ import annotations

import numpy as np

from evenhand.errors import UserError
from evenhand.results.record_parts import PassRate
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.stats.pass_at_k import pass_at_k
from evenhand.stats.twoway import win_rate


def pass_rates(done: RunArtifacts, arm: str) -> tuple[PassRate, ...]:
    """pass@k over the seeds that were sampled; intervals are over seeds and prompts."""
    nodes = [node for node in done.plan.passes.get(arm, {}).values() if done.has(node)]
    if not nodes:
        return ()
    n = done.plan.experiment.evaluation.pass_answers
    right = np.array([_right(done.load(node, "scores.json")["gold"]) for node in nodes])
    found = []
    for k in done.plan.experiment.evaluation.pass_at:
        solved = win_rate(pass_at_k(right, n, k))
        found.append(PassRate(k=k, rate=solved.estimate, ci95=solved.ci95, answers=n))
    return tuple(found)


def _right(scores: list[list[float | None]]) -> list[int]:
    """How many answers to each prompt are right; an answer without a score is not."""
    known = {x for row in scores for x in row if x is not None}
    if not known <= {0.0, 1.0}:
        raise UserError(
            f"a score of {min(known - {0.0, 1.0}):g} is neither right nor wrong", where="evaluation.pass_at",
            fix="judge by a reward of 1 and 0, or remove `pass_at`",
        )  # fmt: skip
    return [sum(x == 1.0 for x in row) for row in scores]
