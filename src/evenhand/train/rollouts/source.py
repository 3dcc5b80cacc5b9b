"""A source over rollouts: sample, score, shape, read, credit, train on. Every online method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from evenhand.core.credit import FLAT
from evenhand.objectives import PolicyGradient, part_of
from evenhand.protocols import Reward, Step
from evenhand.seeding import keyed
from evenhand.train import example_codec
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Example, micro_batches, split_zero_advantage
from evenhand.train.method import Method
from evenhand.train.offline import with_reference
from evenhand.train.policies import GENERATOR
from evenhand.train.rollouts.experience import HINDSIGHT, Experience
from evenhand.train.rollouts.gap import CAP, Recomputed, first_completions, measured
from evenhand.train.rollouts.given import GivenAnswers
from evenhand.train.rollouts.kl import sequence_kl
from evenhand.train.rollouts.metrics import OF_REWARDS, checked, summary, watched
from evenhand.train.rollouts.plan import Rollouts
from evenhand.train.rollouts.reader import Reader
from evenhand.train.rollouts.sampler import Sampler
from evenhand.train.rollouts.schedule import Buffer
from evenhand.train.rollouts.shaping import spread, with_greedy, with_scores, without_failed, without_greedy
from evenhand.train.rollouts.stale import age, by_sampler, stale_metrics
from evenhand.train.shuffling import window
from evenhand.types import Finish, Group, Head, Need, Prompt, Sampling, Scores, TokenGroup


@dataclass(kw_only=True)
class RolloutSource:
    """Optimizer steps over rollouts of the current policy, as the method's `Rollouts` say.

    `collected(rollout)` is called after a rollout was sampled and read, before the first update on it: where a partner catches
    up, or the policy starts anew. `carried` are networks that change over the run beside the policy. `fixed` are examples of
    the data that every rollout is trained with; `answers` the data's own, by prompt, for those that are not sampled. A
    method that learns from a teacher alone has no `reward`. `ranks` share the micro-batches of a step, of which there are `steps`
    in all: no rollout is sampled for one beyond. `recomputed` says of which tokens the trainer's own log-probs are read. State:
    the buffer of a rollout that is still being trained on, those that wait in flight, and what credits and the KL coefficient
    remember."""

    method: Method
    prompts: Sequence[Prompt]
    sampler: Sampler
    reward: Reward | None
    reader: Reader
    prompts_per_step: int
    tokens_per_microbatch: int
    seed: int
    ledger: Ledger
    ranks: int = 1
    steps: int | None = None
    recomputed: Recomputed = Recomputed.NOTHING
    collected: Callable[[int], None] = lambda rollout: None
    carried: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    fixed: Sequence[Example] = ()
    answers: Mapping[str, Group] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict, init=False)
    metrics: dict[str, float] = field(default_factory=dict, init=False)
    in_flight: dict[int, list[Example]] = field(default_factory=dict, init=False)
    """Rollouts that were sampled and scored, and not trained on yet."""

    def __post_init__(self) -> None:
        self.buffer = Buffer(schedule=self.plan.schedule, seed=self.seed, fixed=self.fixed)

    @property
    def plan(self) -> Rollouts:
        assert self.method.rollouts is not None, "an offline method has no rollouts"
        return self.method.rollouts

    @property
    def groups(self) -> Sequence[TokenGroup]:
        return [e.tokens for e in self.buffer.examples]

    def step(self, index: int) -> Step:
        rollout, update = divmod(index, self.plan.schedule.updates)
        for due in self.plan.schedule.due(index, self.steps):
            self.in_flight[due] = self.sampled(due, version=index)
        if update == 0:
            fresh, self.metrics = self.collect(rollout)
            self.buffer.add(fresh)
            self.collected(rollout)
        elif self.plan.schedule.renews(update):
            self.renew()
        moves = self.method.reference_update
        if moves is not None and moves.due(index) and (update or self.plan.schedule.accumulate):
            self.compare_again()
        chosen = self.buffer.share(rollout, update)
        aged = age(chosen, index) if self.plan.schedule.staleness else {}
        if self.method.skips_zero_advantage:
            chosen = [piece for example in chosen for piece in split_zero_advantage(example)]
        self.ledger.tokens_trained += sum(e.tokens.size for e in chosen if not e.denominator_only)
        return Step(micro_batches(chosen, self.tokens_per_microbatch, self.ranks), {**self.metrics, **aged})

    def renew(self) -> None:
        """The current policy as the proximal one of what is left of the rollout; who sampled it stays known."""
        with self.ledger.phase("score"):
            rows = self.reader.read(frozenset({Head.LOGP}), self.buffer.examples)[Head.LOGP]
        renewed = zip(self.buffer.examples, rows, strict=True)
        self.buffer.examples = [replace(e, per_token={**e.per_token, "old_logp": row}) for e, row in renewed]

    def compare_again(self) -> None:
        """The log-probs of a reference that has moved, for all that is still learned from and compared with it."""
        known = self.buffer.examples
        if self.reader.reference is not None and known and all("ref_logp" in e.per_token for e in known):
            with self.ledger.phase("score"):
                self.buffer.examples = with_reference(known, self.reader.reference(known))

    def sampled(self, rollout: int, *, version: int) -> list[Example]:
        """One rollout, sampled and scored, by weights that have taken `version` steps."""
        groups = [replace(g, policy_version=version) for g in self._scored_groups(rollout)]
        return [Example(tokens=self.reader.tokenise(g)) for g in groups]

    def collect(self, rollout: int) -> tuple[list[Example], dict[str, float]]:
        """One rollout that is in flight: read by the networks of now, and credited."""
        plan, examples = self.plan, self.in_flight.pop(rollout)
        groups = [e.tokens.group for e in examples]
        with self.ledger.phase("score"):
            heads = self._heads()
            examples = self.reader(examples, heads, generator_is_reference=self.method.reference == GENERATOR)
            gap = self._gap(examples, heads)
            if plan.credit.hindsight:
                look = self.reader.beside_good if self.method.compares_exactly else self.reader.in_hindsight
                examples = look(examples, plan.credit)  # type: ignore[arg-type]
        stale: dict[str, float] = {}
        if plan.schedule.staleness:
            stale = stale_metrics(examples, self.method.objective, plan.schedule.proximal)
            if self.method.reference == GENERATOR:
                examples = [by_sampler(e, "ref_logp") for e in examples]
        metrics = summary(groups, examples) | watched(groups) | gap | stale
        metrics = metrics if self.reward is not None else {k: v for k, v in metrics.items() if k not in OF_REWARDS}
        compared = "ref_logp" in examples[0].per_token
        learned = plan.credit(
            Experience(
                examples=examples, reward=plan.truncation.rewards(examples), memory=self.memory, seed=self.seed, rollout=rollout,
                kl_coefficient=plan.kl.current(self.memory) if compared else 0.0, kl_estimator=plan.kl.estimator,
            )
        )  # fmt: skip
        if plan.kl.target and compared:
            plan.kl.adapt(self.memory, sequence_kl(examples))
            metrics["kl_coefficient"] = plan.kl.current(self.memory)
        return [self._finished(e) for e in learned], metrics

    def _scored_groups(self, rollout: int) -> list[Group]:
        """Groups of this rollout's prompts; flat ones are replaced by further prompts while `refill` allows."""
        count, tries = self.plan.schedule.prompts(self.prompts_per_step), self.plan.exploration.refill + 1
        kept: list[Group] = []
        for attempt in range(tries):
            if (wanted := count - len(kept)) == 0:
                break
            rows = window(self.seed, "prompts", len(self.prompts), (rollout * tries + attempt) * count, wanted)
            groups = self._answered([self.prompts[i] for i in rows], keyed(self.seed, "rollout", rollout, attempt))
            last = attempt == tries - 1
            kept += groups if last else [g for g in groups if spread(g, unshaped=True) > FLAT]
        return kept

    def _answered(self, prompts: Sequence[Prompt], seed: int) -> list[Group]:
        """A scored group per prompt: the data's own answers to the first of them, as many as are given, and samples."""
        given = round(self.plan.exploration.given * len(prompts))
        own = [replace(g, scores=(0.0,)) for g in GivenAnswers(self.answers).generate(prompts[:given], 1, Sampling(seed=seed))]
        return [*own, *(self.scored(prompts[given:], seed) if given < len(prompts) else [])]

    def scored(self, prompts: Sequence[Prompt], seed: int) -> list[Group]:
        """A group per prompt with its shaped scores; `seed` keys the sampling. Scored beside it, where the credit asks for one,
        is the greedy answer: in the same group, since a reward may compare."""
        n = self.plan.completions_per_prompt
        with self.ledger.phase("generate"):
            groups = self.sampler(prompts, n, self.plan.exploration, seed=seed)
            if self.plan.credit.against_greedy:
                groups = [with_greedy(g, best) for g, best in zip(groups, self.sampler.greedy(prompts), strict=True)]
        self.ledger.tokens_generated += sum(c.written for g in groups for c in g.completions)
        if self.reward is None:
            given = [without_failed(g, Scores((0.0,) * len(g.completions))) for g in groups]
            return [with_scores(g, s) for g, s in zip(groups, given, strict=True)]
        with self.ledger.phase("score"):
            scores = [without_failed(g, s) for g, s in zip(groups, self.reward(groups), strict=True)]
            checked(groups, scores)
        self.ledger.reward_calls += sum(len(g.completions) for g in groups)
        scored = [with_scores(g, s) for g, s in zip(groups, scores, strict=True)]
        shaped = [self.plan.shaping(g) for g in scored]
        return [without_greedy(g) for g in shaped] if self.plan.credit.against_greedy else shaped

    def _heads(self) -> frozenset[Head]:
        """What the trainer must be asked for: log-probs only where later updates or the way of sampling need its own."""
        plan, needs, sampling = self.plan, self.method.objective.needs, self.sampler.sampling
        heads = plan.credit.reads | plan.kl.reads | ({Head.VALUE} if Need.VALUE in needs else set())
        off_policy = plan.schedule.updates > 1 and Need.OLD_LOGP in needs
        temperature = self.method.logit_temperature(sampling.temperature)
        own = off_policy or plan.schedule.staleness > 0 or not plan.exploration.sampler_matches_trainer(sampling, temperature)
        return heads | {Head.LOGP} if own or self.recomputed is Recomputed.ALL else heads

    def _gap(self, examples: Sequence[Example], heads: frozenset[Head]) -> dict[str, float]:
        """How far the sampler's log-probs are from the trainer's, where that is asked; older weights' are told by `stale`."""
        if self.recomputed is Recomputed.NOTHING or self.plan.schedule.staleness:
            return {}
        looked_at = examples if Head.LOGP in heads else first_completions(examples)
        known = [e.per_token["old_logp"] for e in looked_at]
        own = known if Head.LOGP in heads else self.reader.read(frozenset({Head.LOGP}), looked_at)[Head.LOGP]
        gradient = part_of(self.method.objective, PolicyGradient)
        cap = (gradient.importance if gradient is not None else 0.0) or CAP
        plan, sampling = self.plan, self.sampler.sampling
        temperature = self.method.logit_temperature(sampling.temperature)
        counts = partial(plan.exploration.draws_the_policy, plan.completions_per_prompt, sampling, temperature)
        return measured(looked_at, own, counts, cap=cap)

    def _finished(self, example: Example) -> Example:
        """Drops what the objective will not read, so that buffers stay small, and sets what a clip is around and the weight of
        what must not count."""
        drop, schedule = {"exact_kl", "collision", HINDSIGHT}, self.plan.schedule
        if schedule.staleness and schedule.proximal == GENERATOR:  # after the credit, whose KL is that of the policy of now
            example = by_sampler(example, "old_logp")
        elif schedule.updates == 1:
            drop.add("old_logp")
        if Need.REF_LOGP not in self.method.objective.needs:
            drop.add("ref_logp")
        if Need.GIVEN in self.method.objective.needs:
            flags = tuple(float(c.finish is Finish.GIVEN) for c in example.tokens.group.completions)
            example = replace(example, per_completion={**example.per_completion, "given": flags})
        example = replace(example, per_token={k: v for k, v in example.per_token.items() if k not in drop})
        return self.plan.truncation.weighted(example)

    def state_dict(self) -> dict[str, Any]:
        examples = [example_codec.to_json(e) for e in self.buffer.examples]
        waiting = {str(rollout): [example_codec.to_json(e) for e in found] for rollout, found in self.in_flight.items()}
        more = {"in_flight": waiting} if waiting else {}
        return {"examples": examples, "metrics": self.metrics, "memory": self.memory, **more}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.buffer.examples = [example_codec.from_json(e) for e in state["examples"]]
        waiting = state.get("in_flight", {})
        self.in_flight = {int(rollout): [example_codec.from_json(e) for e in found] for rollout, found in waiting.items()}
        self.metrics, self.memory = dict(state["metrics"]), dict(state["memory"])
