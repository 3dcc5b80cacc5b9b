"""Training-time samples of an arm, scored by the judge and measured against the start: where does more reward do harm?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from evenhand.evaluation.best_of_n import over_optimisation
from evenhand.evaluation.logprobs import log_probs
from evenhand.stages.common import begin, build_reward, open_policy, open_renderer
from evenhand.stages.context import StageContext
from evenhand.stages.judge import numbers, scores
from evenhand.stages.setup import Setup
from evenhand.stages.training_samples import training_samples
from evenhand.store.whole import write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontierSpec:
    """The samples of the input `arm`: KL to `start`, score under the judge's reward `gold` (None: it compares pairs).

    What a reward model says of an arm without a reward of its own is a stage beside it: see `score_answers`.
    """

    KIND: ClassVar[str] = "frontier"
    VERSION: ClassVar[int] = 3

    gold: Mapping[str, Any] | None = None
    setup: Setup


def run(spec: FrontierSpec, context: StageContext) -> None:
    """Needs `logp` in the arm's samples.jsonl; their KL estimate is logp - logp of the start, both at temperature 1."""
    device, inputs, setup = begin(spec.setup.compute), context.inputs, spec.setup
    start, renderer = open_policy(inputs["start"], setup.compute, device), open_renderer(inputs["start"], setup.template)
    samples = training_samples(inputs, renderer.stop_ids)
    groups = [group for _, group in samples]
    reference = log_probs(start, renderer, max_prompt=setup.lengths.prompt)
    gold = numbers(scores(build_reward(spec.gold, inputs, setup, device), groups)) if spec.gold else [None] * len(groups)
    points = []
    for (row, _), ref, judged in zip(samples, scores(reference, groups), gold, strict=True):
        kl = row["logp"] - ref if row.get("logp") is not None else None
        points.append({"step": row["step"], "kl": kl, "reward": row["reward"], "gold": judged})
    write_json(context.out / "frontier.json", over_optimisation(points))
