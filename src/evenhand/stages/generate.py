"""Answers to the held-out prompts, by the same sampler for every arm, and how far they lie from the start.

With `best_of` n the answer is the best of n samples by a reward; its KL is that of one sample plus the bound log n - (n - 1)/n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from evenhand.core.selection import best_of
from evenhand.data.jsonl import write_groups
from evenhand.engines.registry import open_engine
from evenhand.environments.episodes import in_environment
from evenhand.evaluation.conversations import turn_by_turn
from evenhand.models.policy import Policy
from evenhand.protocols import Reward
from evenhand.seeding import keyed, rng
from evenhand.stages.common import begin, build_reward, open_policy, open_renderer
from evenhand.stages.context import StageContext
from evenhand.stages.data import nothing_held_out
from evenhand.stages.setup import Setup
from evenhand.stages.snapshots import kept
from evenhand.stages.splits import read_split
from evenhand.stats.bestofn import kl_bound
from evenhand.store.pointer import model_path
from evenhand.store.whole import write_json
from evenhand.train.config import SamplingConfig
from evenhand.train.examples import Example
from evenhand.train.logprobs import read, total
from evenhand.types import Finish, Group, Head, Prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateSpec:
    """An answer of input `policy` to each of the first `prompts` of `split`: a sample, or the best of `best_of` by `reward`."""

    KIND: ClassVar[str] = "generate"
    VERSION: ClassVar[int] = 2

    prompts: int
    split: str = "heldout_prompts"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    setup: Setup
    best_of: int = 1
    reward: Mapping[str, Any] | None = None
    snapshot: int | None = None
    """The policy's weights after this step of its training, in place of the last."""
    environment: str | Mapping[str, Any] | None = None
    """What answers between the turns of an answer; None: answers of one turn."""


def run(spec: GenerateSpec, context: StageContext) -> None:
    device, setup = begin(spec.setup.compute), spec.setup
    inputs = dict(context.inputs)
    if spec.snapshot is not None:
        inputs["policy"] = kept(inputs["policy"], spec.snapshot)
    policy, renderer = open_policy(inputs["policy"], setup.compute, device), open_renderer(inputs["policy"], setup.template)
    prompts = [g.prompt for g in read_split(inputs, spec.split)][: spec.prompts]
    if not prompts:
        raise nothing_held_out()
    sampling = spec.sampling.sampler(setup.lengths.completion, seed=keyed(context.seed, "evaluation"))
    engine = in_environment(open_engine(setup.compute.sampler, policy, renderer), spec.environment, renderer)
    reward = build_reward(spec.reward, inputs, setup, device) if spec.reward is not None and spec.best_of > 1 else None

    def answered(asked: Sequence[Prompt]) -> list[Group]:
        found = engine.generate(asked, spec.best_of, sampling, max_prompt=setup.lengths.prompt, progress=context.report)
        return found if reward is None else best_ones(found, reward, context.seed)

    groups = turn_by_turn(prompts, answered)
    write_groups(context.out / "generations.jsonl", groups)
    items = [Example(tokens=renderer.tokenise(g, max_prompt=setup.lengths.prompt, max_completion=None)) for g in groups]
    same = model_path(inputs["policy"]) == model_path(inputs["start"])
    start = policy if same else open_policy(inputs["start"], setup.compute, device)
    kl = kl_per_answer(items, policy, start, setup.tokens_per_microbatch, device)
    write_json(context.out / "measured.json", measured(groups, items, [k + kl_bound(spec.best_of) for k in kl]))


def best_ones(groups: Sequence[Group], reward: Reward, seed: int) -> list[Group]:
    """Each group with its best answer alone; ties broken by keyed numbers. A group without a scored answer keeps its first."""
    chosen = []
    for group, scored in zip(groups, reward(groups), strict=True):
        scores = torch.tensor([scored.values], dtype=torch.float64)
        uniform = torch.from_numpy(rng(seed, "best of n", group.prompt.id).random(scores.shape))
        best = int(best_of(scores, uniform)[0]) if not scores.isnan().all() else 0
        chosen.append(Group(prompt=group.prompt, completions=(group.completions[best],), scores=(scored.values[best],)))
    return chosen


def kl_per_answer(items: list[Example], policy: Policy, start: Policy, tokens_per_microbatch: int, device: str) -> list[float]:
    """sum_t log pi - log start of each answer, nats, at temperature 1; for samples at 1 its mean estimates KL(pi || start)."""
    heads = frozenset({Head.LOGP})
    logps = [
        read(m, items, heads, tokens_per_microbatch=tokens_per_microbatch, temperature=1.0, device=device)[Head.LOGP]
        for m in (policy, start)
    ]
    rows = zip(items, *logps, strict=True)
    return [total(own[0] - ref[0], item.tokens.completions[0].mask) for item, own, ref in rows]


def measured(groups: Sequence[Group], items: Sequence[Example], kl: Sequence[float]) -> dict[str, Any]:
    """Per answer: KL to the start (nats), length in tokens and characters, whether it was cut. Text alone, of a server that says
    no tokens, is as long as its items."""
    answers = [g.completions[0] for g in groups]
    lengths = [sum(i.tokens.completions[0].mask) if c.tokens is None else c.written for c, i in zip(answers, items, strict=True)]
    return {
        "prompt_id": [g.prompt.id for g in groups],
        "kl": kl,
        "length": lengths,
        "chars": [len(c.text) for c in answers],
        "truncated": [c.finish is Finish.LENGTH for c in answers],
        **({"turns": [sum(t.written for t in c.turns) for c in answers]} if any(c.turns for c in answers) else {}),
        **({"failed": [bool(c.failed) for c in answers]} if any(c.failed for c in answers) else {}),
    }
