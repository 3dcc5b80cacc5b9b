"""Training-time samples of an arm, scored by the judge and measured against the start: where does more reward do harm?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from evenhand.data.jsonl import turns_from_json
from evenhand.evaluation.best_of_n import over_optimisation
from evenhand.evaluation.logprobs import log_probs
from evenhand.stages.common import begin, build_reward, open_policy, open_renderer
from evenhand.stages.context import StageContext
from evenhand.stages.judge import numbers, scores
from evenhand.stages.setup import Setup
from evenhand.stages.splits import read_split
from evenhand.store.whole import write_json
from evenhand.types import Completion, Finish, Group, Prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontierSpec:
    """The samples of the input `arm`: KL to `start`, score under the judge's reward `gold` (None: it compares pairs), `proxy`
    where the arm had no reward of its own."""

    KIND: ClassVar[str] = "frontier"
    VERSION: ClassVar[int] = 3

    gold: Mapping[str, Any] | None = None
    proxy: Mapping[str, Any] | None = None
    setup: Setup


def run(spec: FrontierSpec, context: StageContext) -> None:
    """Needs `logp` in the arm's samples.jsonl; their KL estimate is logp - logp of the start, both at temperature 1."""
    device, inputs, setup = begin(spec.setup.compute), context.inputs, spec.setup
    rows = [json.loads(line) for line in (inputs["arm"] / "samples.jsonl").read_bytes().split(b"\n") if line.strip()]
    prompts = {g.prompt.id: g.prompt for g in read_split(inputs, "heldout_prompts")}
    start, renderer = open_policy(inputs["start"], setup.compute, device), open_renderer(inputs["start"], setup.template)
    groups = [_group(row, prompts[row["prompt_id"]], renderer.stop_ids) for row in rows]
    reference = log_probs(start, renderer, max_prompt=setup.lengths.prompt)
    gold = numbers(scores(build_reward(spec.gold, inputs, setup, device), groups)) if spec.gold else [None] * len(rows)
    proxy = numbers(scores(build_reward(spec.proxy, inputs, setup, device), groups)) if spec.proxy else [None] * len(rows)
    points = []
    for row, ref, judged, rewarded in zip(rows, scores(reference, groups), gold, proxy, strict=True):
        kl = row["logp"] - ref if row.get("logp") is not None else None
        given = row["reward"] if row["reward"] is not None else rewarded
        points.append({"step": row["step"], "kl": kl, "reward": given, "gold": judged})
    write_json(context.out / "frontier.json", over_optimisation(points))


def _group(row: Mapping[str, Any], prompt: Prompt, stops: frozenset[int]) -> Group:
    """The sample on the very tokens that were drawn, so that both log-probs are of the same sequence, and as it ended: samples
    of before say that by their last token alone."""
    tokens = tuple(row["tokens"])
    finish = Finish(row["finish"]) if "finish" in row else Finish.STOP if tokens[-1] in stops else Finish.LENGTH
    turns, failed = turns_from_json(row.get("turns", ())), row.get("failed", "")
    told = Completion(content=row["completion"], tokens=tokens, finish=finish, turns=turns, failed=failed)
    return Group(prompt=prompt, completions=(told,))
