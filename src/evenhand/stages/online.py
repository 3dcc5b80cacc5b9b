"""Rollouts for a method: engine, reward and reference around the policy that is being trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from evenhand.data.jsonl import turn_to_json
from evenhand.data.window import window_of
from evenhand.engines.counted import Counted
from evenhand.engines.mixture import MixtureEngine
from evenhand.engines.registry import is_exact, open_engine
from evenhand.environments.episodes import in_environment
from evenhand.models.backbone import Trunk
from evenhand.models.policy import Policy
from evenhand.protocols import Engine, Reward
from evenhand.seeding import keyed
from evenhand.stages import tokens
from evenhand.stages.adapter import with_adapter
from evenhand.stages.common import open_policy
from evenhand.stages.offline import frozen_start, reading, reference_reader
from evenhand.stages.on_ranks import engine_on
from evenhand.stages.setup import Compute
from evenhand.stages.splits import read_split
from evenhand.stages.teacher import open_teacher
from evenhand.stages.training_run import TrainingRun
from evenhand.train import flops
from evenhand.train.config import SamplingConfig
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Example, with_pairs
from evenhand.train.logprobs import Rows
from evenhand.train.optimizers import Optimizer
from evenhand.train.policies import DATA, INITIAL_POLICY, MIXTURE, PREVIOUS, TEACHER
from evenhand.train.rollouts import Truncation
from evenhand.train.rollouts.gap import Recomputed
from evenhand.train.rollouts.given import GivenAnswers, by_prompt
from evenhand.train.rollouts.reader import Reader
from evenhand.train.rollouts.sampler import Sampler
from evenhand.train.rollouts.source import RolloutSource
from evenhand.train.weights import copy_weights
from evenhand.types import Completion, Group, Head

WATCHED = 4
"""Fixed held-out prompts whose answers are shown over training."""


def source(run: TrainingRun, optimizer: Optimizer) -> RolloutSource:
    """The method's rollouts as a source of optimizer steps."""
    method, train, plan = run.method, run.spec.train, run.method.rollouts
    assert plan is not None
    assert run.reward is not None or not method.rewarded
    partner, initialise = plan.exploration.partner, plan.schedule.initialise
    initial = frozen_start(run) if {INITIAL_POLICY, MIXTURE} & {partner, initialise} else None
    previous = twin(run) if partner == PREVIOUS else None
    author = {INITIAL_POLICY: initial, PREVIOUS: previous}.get(partner)
    beside: Engine | None = None if author is None else counted_engine(run, author)
    if partner == MIXTURE:
        assert initial is not None
        mixed = MixtureEngine(run.model, initial, run.renderer, share=plan.exploration.mixture)
        beside = counted(run, mixed, run.model, initial)
    reference = reference_reader(run, run.following or initial) if method.reference == INITIAL_POLICY else None
    if method.reference == TEACHER and not method.compares_exactly:
        reference = reference_reader(run, open_teacher(run.inputs, run.renderer, run.spec.setup.compute, run.device, run.ledger))
    rows = [g for g in read_split(run.inputs, run.spec.data or method.split) if g.prompt.id not in run.held]
    answers = by_prompt(rows) if plan.exploration.given or partner == DATA else {}
    groups = rows if answers else once(rows)  # each row has an answer of its own
    limits = run.spec.setup.lengths
    return RolloutSource(
        method=method,
        prompts=[g.prompt for g in groups],
        answers=answers,
        sampler=Sampler(
            engine=counted_engine(run, run.model),
            sampling=run.spec.sampler(),
            partner=GivenAnswers(answers) if partner == DATA else beside,
            max_prompt=limits.prompt,
        ),
        reward=run.reward,
        reader=Reader(
            tokenise=lambda g: run.renderer.tokenise(
                g, max_prompt=limits.prompt, max_completion=None if sampled(g) else limits.completion
            ),
            read=lambda heads, examples: recomputed(run, heads, examples),
            reference=reference,
            prompt_ids=lambda prompt: run.renderer.prompt_ids(prompt, room_for_prompts(run)),
        ),
        prompts_per_step=train.prompts_per_step,
        tokens_per_microbatch=train.tokens_per_microbatch,
        seed=run.seed,
        ledger=run.ledger,
        ranks=run.ranks.size,
        steps=run.steps,
        recomputed=recomputed_of(run.spec.setup.compute),
        collected=between_rounds(run, previous, initial if initialise == INITIAL_POLICY else None, optimizer),
        carried={} if previous is None else {"previous": previous},
        fixed=own_pairs(run, reference) if reference is not None and plan.schedule.hybrid else (),
    )


def recomputed_of(compute: Compute) -> Recomputed:
    """Of which sampled tokens the trainer reads log-probs of its own."""
    if not is_exact(compute.engine):
        return Recomputed.ALL
    reduced = compute.dtype not in ("float32", "float64") or compute.matmul == "bfloat16"
    return Recomputed.SOME if reduced else Recomputed.NOTHING


def room_for_prompts(run: TrainingRun) -> int | None:
    """Tokens that a prompt of our own making may have before an answer; None where the model does not say how many it reads."""
    window = window_of(run.model.hf.config)
    return None if window is None else max(1, window - run.spec.setup.lengths.completion)


def once(groups: Iterable[Group]) -> list[Group]:
    """A group per prompt, the first, in order: pairs of a prompt ask it once."""
    first: dict[str, Group] = {}
    for group in groups:
        first.setdefault(group.prompt.id, group)
    return list(first.values())


def sampled(group: Group) -> bool:
    """Whether its answers are tokens that an engine gave; the data's own are text, and cut to the limit."""
    return all(c.tokens is not None for c in group.completions)


def twin(run: TrainingRun, ledger: Ledger | None = None) -> Policy:
    """The initial policy once more, with the same adapter if there is one, so that weights go from one to the other by name."""
    start = open_policy(run.inputs["start"], run.spec.setup.compute, run.device, ledger)
    return with_adapter(start, run.spec.train.adapter, run.seed)


def between_rounds(
    run: TrainingRun, previous: Policy | None, initial: torch.nn.Module | None, optimizer: Optimizer
) -> Callable[[int], None]:
    """What happens after a rollout was sampled: the last round's policy catches up, the policy starts anew from `initial`."""
    again = twin(run) if initial is not None and run.model.adapter is not None else initial

    def collected(rollout: int) -> None:
        if previous is not None:
            copy_weights(run.model, previous)
        if again is not None:
            copy_weights(again, run.model)
            optimizer.restart()

    return collected


def own_pairs(run: TrainingRun, reference: Callable[[Sequence[Example]], Rows]) -> list[Example]:
    """The data's own preference pairs, for a method that mixes them with its rollouts; none of a validation prompt."""
    read = map(with_pairs, tokens.read(run.inputs["tokens"]))
    items = [i for i in read if i.tokens.group.prompt.id not in run.held]
    items = [replace(i, per_token={"ref_logp": r}) for i, r in zip(items, reference(items), strict=True)]
    return [Truncation().weighted(i) for i in items]


def recomputed(run: TrainingRun, heads: frozenset[Head], items: Sequence[Example]) -> dict[Head, Rows]:
    """The trainer's own log-probs and values of a rollout."""
    with run.ledger.passes("recompute"):
        return reading(run, run.model, heads, items)


def counted_engine(run: TrainingRun, policy: Trunk) -> Counted:
    """A policy as an engine, its forward passes counted."""
    return counted(run, open_engine(run.spec.setup.compute.sampler, policy, run.renderer), policy)


def counted(run: TrainingRun, engine: Engine, *policies: Trunk) -> Counted:
    """An engine, a forward pass of each of `policies` counted for everything that it samples."""
    shapes = [flops.shape_of(policy) for policy in policies]

    def spend(groups: Sequence[Group], max_prompt: int | None) -> None:
        for group in groups if run.ranks.first else ():
            prompt = len(run.renderer.prompt_ids(group.prompt, max_prompt))
            for before, answers in passes(prompt, group):
                work = flops.work([before], answers, [0] * len(answers))
                run.ledger.spend(sum(flops.forward(shape, work) for shape in shapes))

    inside = in_environment(engine, run.spec.environment, run.renderer)
    return Counted(engine_on(run.ranks, inside, policies[0]), spend)


def passes(prompt: int, group: Group) -> Iterator[tuple[int, list[int]]]:
    """The passes in which a group was sampled: tokens that were read first, and those that each answer then went on with.

    An answer of several turns reads all that was said before each of them.
    """
    yield prompt, [c.turns[0].tokens if c.turns else len(c.tokens or ()) for c in group.completions]
    for completion in group.completions:
        before = prompt
        for number, turn in enumerate(completion.turns):
            if number and turn.written:
                yield before, [turn.tokens]
            before += turn.tokens


def watched_samples(run: TrainingRun, reward: Reward | None) -> list[dict[str, Any]]:
    """Answers to a few fixed held-out prompts, with the training reward where there is one. Sampling is keyed by prompt alone."""
    prompts = [g.prompt for g in read_split(run.inputs, "heldout_prompts")][:WATCHED]
    sampling, limit = run.spec.sampler(seed=keyed("watched")), run.spec.setup.lengths.prompt
    groups = counted_engine(run, run.model).generate(prompts, 1, sampling, max_prompt=limit)
    scores = [s.values[0] for s in reward(groups)] if reward is not None else [None] * len(groups)
    return [
        {
            "prompt_id": g.prompt.id,
            "prompt": g.prompt.text,
            "completion": g.completions[0].text,
            "reward": score,
            "length": g.completions[0].written,
            "tokens": list(g.completions[0].tokens or ()),
            "finish": g.completions[0].finish.value,
            "logp": log_prob(g.completions[0], run.spec.sampling),
            **in_turns(g.completions[0]),
        }
        for g, score in zip(groups, scores, strict=True)
    ]


def in_turns(completion: Completion) -> dict[str, Any]:
    """The turns of an answer that has several, and why its environment failed if it did."""
    turns = {"turns": [turn_to_json(turn) for turn in completion.turns]} if completion.turns else {}
    return turns | ({"failed": completion.failed} if completion.failed else {})


def log_prob(completion: Completion, sampled: SamplingConfig) -> float | None:
    """Nats of the whole answer under the policy; None when it was sampled from another distribution than the policy's own."""
    plain = sampled.temperature == 1.0 and not sampled.cuts
    return sum(completion.behaviour_logp) if plain and completion.behaviour_logp is not None else None
