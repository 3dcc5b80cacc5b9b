"""Several answers of one policy to each held-out prompt, scored by the judge, if it scores.

From these, and from what every reward model says of them (`score_answers`), come best-of-n curves (does choosing by the reward
model help?) and the reward's leaning to length within a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from evenhand.data.jsonl import write_groups
from evenhand.engines.registry import open_engine
from evenhand.environments.episodes import in_environment
from evenhand.seeding import keyed
from evenhand.stages.common import begin, build_reward, open_policy, open_renderer
from evenhand.stages.context import StageContext
from evenhand.stages.score_answers import table
from evenhand.stages.setup import Setup
from evenhand.stages.splits import read_split
from evenhand.store.whole import write_json
from evenhand.train.config import SamplingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRewardsSpec:
    """`completions_per_prompt` answers of the input `start` to each of `prompts`, under the judge's reward `gold`."""

    KIND: ClassVar[str] = "sample_rewards"
    VERSION: ClassVar[int] = 2

    gold: Mapping[str, Any] | None = None
    prompts: int
    completions_per_prompt: int
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    setup: Setup
    environment: str | Mapping[str, Any] | None = None


def run(spec: SampleRewardsSpec, context: StageContext) -> None:
    device, inputs, setup = begin(spec.setup.compute), context.inputs, spec.setup
    policy, renderer = open_policy(inputs["start"], setup.compute, device), open_renderer(inputs["start"], setup.template)
    prompts = [g.prompt for g in read_split(inputs, "heldout_prompts")][: spec.prompts]
    sampling = spec.sampling.sampler(setup.lengths.completion, seed=keyed(context.seed, "best of n"))
    engine = in_environment(open_engine(setup.compute.sampler, policy, renderer), spec.environment, renderer)
    groups = engine.generate(
        prompts, spec.completions_per_prompt, sampling, max_prompt=setup.lengths.prompt, progress=context.report
    )
    write_groups(context.out / "samples.jsonl", groups)
    gold = table(build_reward(spec.gold, inputs, setup, device), groups) if spec.gold is not None else None
    lengths_of = [[c.written for c in g.completions] for g in groups]
    write_json(context.out / "scores.json", {"gold": gold, "length": lengths_of})
