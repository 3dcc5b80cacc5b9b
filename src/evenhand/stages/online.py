"""Rollouts for a method: engine, reward and reference around the policy that is being trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from evenhand.engines.local import LocalEngine
from evenhand.methods import PREFERENCES
from evenhand.protocols import Reward
from evenhand.seeding import keyed
from evenhand.stages.adapter import with_adapter
from evenhand.stages.common import build_reward, open_policy, read_split, to_items
from evenhand.stages.offline import frozen_start, reading, reference_reader
from evenhand.train.credit_assignment import weighted
from evenhand.train.examples import Item, with_pairs
from evenhand.train.optim import AdamW
from evenhand.train.rollouts import RolloutSource
from evenhand.types import Completion, Sampling

if TYPE_CHECKING:
    from evenhand.models.policy import Policy
    from evenhand.stages.fit import Cell

WATCHED = 4
"""Fixed held-out prompts whose answers are shown over training."""


def source(cell: Cell) -> RolloutSource:
    """The method's rollouts as a source of optimizer steps."""
    method, spec = cell.method, cell.spec
    assert method.rollouts is not None
    lengths, train = spec["lengths"], spec["train"]
    config = sampling(spec)
    asked = {method.rollouts.partner, method.rollouts.restart}
    frozen = frozen_start(cell) if "start" in asked else None
    previous = twin(cell) if method.rollouts.partner == "previous" else None
    partner = {"start": frozen, "previous": previous}.get(method.rollouts.partner)
    reference = reference_reader(cell, frozen) if method.reference == "start" else None
    return RolloutSource(
        plan=method.rollouts,
        prompts=[g.prompt for g in read_split(cell.inputs, "prompts") if g.prompt.id not in cell.held],
        engine=LimitedPrompts(LocalEngine(cell.model, cell.renderer), lengths["prompt"]),
        reward=build_reward(spec["reward"], cell.inputs, spec, cell.device),
        tokenise=lambda g: cell.renderer.tokenise(g, max_prompt=lengths["prompt"], max_completion=None),
        read=lambda heads, items: reading(cell, cell.model, heads, items),
        reference=reference,
        sampling=config,
        prompts_per_step=train["prompts_per_step"],
        tokens_per_microbatch=train["tokens_per_microbatch"],
        seed=cell.seed,
        ledger=cell.ledger,
        provides=method.provides,
        needs=method.objective.needs,
        skip_flat=method.skips_zero_advantage,
        ref_is_generator=method.reference == "generator",
        behaviour_is_exact=exact_behaviour(cell, config),
        partner=None if partner is None else LimitedPrompts(LocalEngine(partner, cell.renderer), lengths["prompt"]),
        carried={} if previous is None else {"previous": previous},
        offline=own_pairs(cell, reference) if method.rollouts.hybrid else (),
    )


def twin(cell: Cell) -> Policy:
    """The start once more, with the same adapter if there is one, so that weights go from one to the other by name."""
    return with_adapter(open_policy(cell.inputs["start"], cell.spec, cell.device), cell.spec, cell.seed)


def between_rounds(cell: Cell, source: RolloutSource, optimizer: AdamW) -> None:
    """Tell the source what happens after a rollout was sampled: the last round's policy catches up, the policy starts anew."""
    previous = source.carried.get("previous")
    again = twin if cell.model.adapter is not None else frozen_start
    start = again(cell) if source.plan.restart == "start" else None

    def collected(rollout: int) -> None:
        if previous is not None:
            copy_weights(cell.model, previous)
        if start is not None:
            copy_weights(start, cell.model)
            optimizer.restart()

    source.collected = collected


@torch.no_grad()
def copy_weights(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Give `target` the parameters of `source` that both have by name."""
    known = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        if name in known:
            parameter.copy_(known[name])


def own_pairs(cell: Cell, reference: Any) -> list[Item]:
    """The data's own preference pairs, for a method that mixes them with its rollouts; none of a validation prompt."""
    groups = [g for g in read_split(cell.inputs, PREFERENCES) if g.prompt.id not in cell.held]
    items = [i for i in map(with_pairs, to_items(groups, cell.renderer, cell.spec)) if i.pairs]
    items = [replace(i, per_token={"ref_logp": r}) for i, r in zip(items, reference(items), strict=True)]
    return [weighted(i, mask_truncated=False) for i in items]


def sampling(spec: Any, seed: int = 0) -> Sampling:
    """The experiment's sampling with its completion limit."""
    return Sampling(**spec["sampling"], max_tokens=spec["lengths"]["completion"], seed=seed)


def exact_behaviour(cell: Cell, config: Sampling) -> bool:
    """True when the sampler's log-probs are the trainer's own: nothing truncated, one temperature, that of training."""
    assert cell.method.rollouts is not None
    if cell.method.rollouts.partner != "none":
        return False
    temperatures = set(cell.method.rollouts.temperatures) or {config.temperature}
    return config.top_p == 1.0 and config.top_k == 0 and temperatures == {cell.temperature}


class LimitedPrompts:
    """An engine whose prompts keep their last `max_prompt` tokens."""

    def __init__(self, engine: LocalEngine, max_prompt: int) -> None:
        self.engine, self.max_prompt = engine, max_prompt

    def generate(self, prompts: Any, n: int, config: Any) -> Any:
        return self.engine.generate(prompts, n, config, max_prompt=self.max_prompt)


def watched_samples(cell: Cell, reward: Reward | None) -> list[dict[str, Any]]:
    """Answers to a few fixed held-out prompts, with the training reward where there is one. Sampling is keyed by prompt alone."""
    prompts = [g.prompt for g in read_split(cell.inputs, "heldout_prompts")][:WATCHED]
    engine = LimitedPrompts(LocalEngine(cell.model, cell.renderer), cell.spec["lengths"]["prompt"])
    groups = engine.generate(prompts, 1, sampling(cell.spec, seed=keyed("watched")))
    scores = [s.values[0] for s in reward(groups)] if reward is not None else [None] * len(groups)
    return [
        {
            "prompt_id": g.prompt.id,
            "prompt": g.prompt.text,
            "completion": g.completions[0].text,
            "reward": score,
            "length": len(g.completions[0].tokens or ()),
            "tokens": list(g.completions[0].tokens or ()),
            "logp": log_prob(g.completions[0], cell.spec["sampling"]),
        }
        for g, score in zip(groups, scores, strict=True)
    ]


def log_prob(completion: Completion, sampled: Mapping[str, Any]) -> float | None:
    """Nats of the whole answer under the policy; None when it was sampled from another distribution than the policy's own."""
    plain = sampled["temperature"] == 1.0 and sampled["top_p"] == 1.0 and sampled["top_k"] == 0
    return sum(completion.behaviour_logp) if plain and completion.behaviour_logp is not None else None
