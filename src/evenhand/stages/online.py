"""Rollouts for a method: engine, reward and reference around the policy that is being trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from evenhand.engines.local import LocalEngine
from evenhand.methods import PREFERENCES
from evenhand.models.policy import Policy
from evenhand.protocols import Reward
from evenhand.seeding import keyed
from evenhand.stages.adapter import with_adapter
from evenhand.stages.common import open_policy, to_items
from evenhand.stages.offline import frozen_start, reading, reference_reader
from evenhand.stages.splits import read_split
from evenhand.stages.training_run import TrainingRun
from evenhand.train.config import SamplingConfig
from evenhand.train.credit_assignment import weighted
from evenhand.train.examples import Item, with_pairs
from evenhand.train.optim import AdamW
from evenhand.train.rollouts import RolloutSource
from evenhand.types import Completion, Group, Prompt, Sampling

WATCHED = 4
"""Fixed held-out prompts whose answers are shown over training."""


def source(run: TrainingRun, optimizer: AdamW) -> RolloutSource:
    """The method's rollouts as a source of optimizer steps."""
    method, train, plan = run.method, run.spec.train, run.method.rollouts
    assert plan is not None
    assert run.reward is not None
    max_prompt = run.spec.setup.lengths.prompt
    config = run.spec.sampler()
    frozen = frozen_start(run) if "start" in {plan.partner, plan.restart} else None
    previous = twin(run) if plan.partner == "previous" else None
    partner = {"start": frozen, "previous": previous}.get(plan.partner)
    reference = reference_reader(run, frozen) if method.reference == "start" else None
    return RolloutSource(
        plan=plan,
        prompts=[g.prompt for g in read_split(run.inputs, "prompts") if g.prompt.id not in run.held],
        engine=engine(run),
        reward=run.reward,
        tokenise=lambda g: run.renderer.tokenise(g, max_prompt=max_prompt, max_completion=None),
        read=lambda heads, items: reading(run, run.model, heads, items),
        reference=reference,
        sampling=config,
        prompts_per_step=train.prompts_per_step,
        tokens_per_microbatch=train.tokens_per_microbatch,
        seed=run.seed,
        ledger=run.ledger,
        provides=method.provides,
        needs=method.objective.needs,
        skip_flat=method.skips_zero_advantage,
        ref_is_generator=method.reference == "generator",
        behaviour_is_exact=exact_behaviour(run, config),
        partner=None if partner is None else LimitedPrompts(LocalEngine(partner, run.renderer), max_prompt),
        collected=between_rounds(run, previous, optimizer),
        carried={} if previous is None else {"previous": previous},
        offline=own_pairs(run, reference) if plan.hybrid else (),
    )


def twin(run: TrainingRun) -> Policy:
    """The start once more, with the same adapter if there is one, so that weights go from one to the other by name."""
    start = open_policy(run.inputs["start"], run.spec.setup.compute, run.device)
    return with_adapter(start, run.spec.train.adapter, run.seed)


def between_rounds(run: TrainingRun, previous: Policy | None, optimizer: AdamW) -> Callable[[int], None]:
    """What happens after a rollout was sampled: the last round's policy catches up, the policy starts anew."""
    again = twin if run.model.adapter is not None else frozen_start
    start = again(run) if run.method.rollouts is not None and run.method.rollouts.restart == "start" else None

    def collected(rollout: int) -> None:
        if previous is not None:
            copy_weights(run.model, previous)
        if start is not None:
            copy_weights(start, run.model)
            optimizer.restart()

    return collected


@torch.no_grad()
def copy_weights(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Give `target` the parameters of `source` that both have by name."""
    known = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        if name in known:
            parameter.copy_(known[name])


def own_pairs(run: TrainingRun, reference: Any) -> list[Item]:
    """The data's own preference pairs, for a method that mixes them with its rollouts; none of a validation prompt."""
    groups = [g for g in read_split(run.inputs, PREFERENCES) if g.prompt.id not in run.held]
    tokenised = to_items(groups, run.renderer, run.spec.setup.lengths, run.spec.supervise)
    items = [i for i in map(with_pairs, tokenised) if i.pairs]
    items = [replace(i, per_token={"ref_logp": r}) for i, r in zip(items, reference(items), strict=True)]
    return [weighted(i, mask_truncated=False) for i in items]


def exact_behaviour(run: TrainingRun, config: Sampling) -> bool:
    """True when the sampler's log-probs are the trainer's own: nothing truncated, one temperature, that of training."""
    assert run.method.rollouts is not None
    if run.method.rollouts.partner != "none":
        return False
    temperatures = set(run.method.rollouts.temperatures) or {config.temperature}
    return config.top_p == 1.0 and config.top_k == 0 and temperatures == {run.temperature}


def engine(run: TrainingRun) -> LimitedPrompts:
    """The policy as a sampler, under the run's limit of prompts."""
    return LimitedPrompts(LocalEngine(run.model, run.renderer), run.spec.setup.lengths.prompt)


class LimitedPrompts:
    """An engine whose prompts keep their last `max_prompt` tokens."""

    def __init__(self, engine: LocalEngine, max_prompt: int) -> None:
        self.engine, self.max_prompt = engine, max_prompt

    def generate(self, prompts: Sequence[Prompt], n: int, sampling: Sampling | Sequence[Sampling]) -> list[Group]:
        return self.engine.generate(prompts, n, sampling, max_prompt=self.max_prompt)


def watched_samples(run: TrainingRun, reward: Reward | None) -> list[dict[str, Any]]:
    """Answers to a few fixed held-out prompts, with the training reward where there is one. Sampling is keyed by prompt alone."""
    prompts = [g.prompt for g in read_split(run.inputs, "heldout_prompts")][:WATCHED]
    groups = engine(run).generate(prompts, 1, run.spec.sampler(seed=keyed("watched")))
    scores = [s.values[0] for s in reward(groups)] if reward is not None else [None] * len(groups)
    return [
        {
            "prompt_id": g.prompt.id,
            "prompt": g.prompt.text,
            "completion": g.completions[0].text,
            "reward": score,
            "length": len(g.completions[0].tokens or ()),
            "tokens": list(g.completions[0].tokens or ()),
            "logp": log_prob(g.completions[0], run.spec.sampling),
        }
        for g, score in zip(groups, scores, strict=True)
    ]


def log_prob(completion: Completion, sampled: SamplingConfig) -> float | None:
    """Nats of the whole answer under the policy; None when it was sampled from another distribution than the policy's own."""
    plain = sampled.temperature == 1.0 and sampled.top_p == 1.0 and sampled.top_k == 0
    return sum(completion.behaviour_logp) if plain and completion.behaviour_logp is not None else None
