"""A source over rollouts: sample, score, turn scores into advantages or selections. Every online method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from evenhand.core import credit, kl_control, selection
from evenhand.engines.checks import per_completion
from evenhand.errors import UserError, did_you_mean
from evenhand.protocols import Engine, Reward, Step
from evenhand.seeding import keyed, rng
from evenhand.train import credit_assignment, example_codec
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Item, micro_batches, split_dead
from evenhand.train.logprobs import Rows
from evenhand.train.shuffling import permutation, window
from evenhand.types import Group, Head, Need, Prompt, Sampling, TokenGroup

CREDITS: dict[str, Callable[[Tensor], Tensor]] = {
    "centre": credit.centre,
    "standardise": credit.standardise,
    "standardise_population": partial(credit.standardise, ddof=0),
    "leave_one_out": credit.leave_one_out,
    "rank": credit.rank,
    "batch_baseline": credit.batch_baseline,
}
"""Reward [P, G] -> advantage [P, G], per completion. `none`, `running_baseline` and the following need more: see the source."""
GROUP_CREDITS = tuple(name for name in CREDITS if name != "batch_baseline")
"""Those that compare the completions of one prompt with each other."""
TOKEN_CREDITS = ("gae", "value")
"""An advantage per token, from a value head."""
PAIRINGS = ("best_vs_worst", "best_vs_random", "rejection")
SELECTIONS = (*PAIRINGS, "best")
NAMES: dict[str, tuple[str, ...]] = {
    "credit": (*CREDITS, "none", "running_baseline", *TOKEN_CREDITS),
    "select": ("none", *SELECTIONS),
    "partner": ("none", "start", "previous"),
    "restart": ("none", "start"),
    "kl_estimator": (*credit_assignment.KL_ESTIMATORS, "exact"),
}
"""What each coordinate may be called."""


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """How experience is gathered and credited; a part of a method.

    A rollout covers `updates / epochs` optimizer steps' worth of prompts and is trained on for `updates` steps. `kl` is the
    coefficient of the KL in the reward (`kl_estimator`, summed per completion before the baseline; TOKEN_CREDITS: per token).
    `credit` is one of CREDITS, `none`, `running_baseline`, `value` (reward-to-go less a learned value) or `gae`, which may
    `bootstrap_truncated` answers. `select` instead keeps a pair of each group (the best against the worst or any other, or two
    resampled by exp(reward / rejection_temperature)), or the best alone.
    `temperatures` samples completion i at temperatures[i mod len] (empty: the experiment's). `refill` draws up to that many
    further times for prompts whose group is flat (DAPO). `mask_truncated` takes no loss on truncated completions, whose rewards
    count in the credit of the others if `truncated_in_baseline`.
    `baseline` is subtracted under credit `none`. `length_penalty` is taken off per character; `overlong_*` (tokens) is DAPO's
    soft penalty before the limit. `accumulate` keeps earlier rollouts in the training set; `hybrid` adds the fixed pairs of the
    data to every rollout. `partner` lets the frozen start, or the policy as it was one rollout ago ("previous"), write the second
    half of every group. `restart` "start" trains every rollout from the start's weights instead of the last ones.
    """

    completions_per_prompt: int = 8
    credit: str = "leave_one_out"
    select: str = "none"
    updates: int = 1
    epochs: int = 1
    kl: float = 0.0
    kl_estimator: str = "k1"
    kl_target: float = 0.0
    kl_horizon: float = 10_000.0
    temperatures: tuple[float, ...] = ()
    refill: int = 0
    mask_truncated: bool = False
    truncated_in_baseline: bool = True
    baseline: float = 0.0
    gamma: float = 1.0
    lam: float = 0.95
    bootstrap_truncated: bool = False
    rejection_temperature: float = 0.5
    accumulate: bool = False
    hybrid: bool = False
    partner: str = "none"
    restart: str = "none"
    length_penalty: float = 0.0
    overlong_limit: int = 0
    overlong_buffer: int = 0

    def __post_init__(self) -> None:
        for name, known in NAMES.items():
            if (value := getattr(self, name)) not in known:
                raise UserError(f"unknown {name} '{value}'", where="rollouts", fix=did_you_mean(str(value), known))
        if not self.rejection_temperature > 0:
            raise UserError(
                f"rejection_temperature is {self.rejection_temperature}", where="rollouts", fix="use a positive number"
            )


@dataclass(kw_only=True)
class RolloutSource:
    """Optimizer steps over rollouts of the current policy; see `Rollouts` for the coordinates.

    `read(heads, items)` gives the trainer's own log-probs and values; `reference(items)` those of the frozen reference, or None.
    `collected(rollout)` is called after a rollout was sampled and read, before the first update on it: where a partner catches
    up, or the policy starts anew. `carried` are networks that change over the run beside the policy. State: the buffer of a
    rollout that is still being trained on, and the running coefficients.
    """

    plan: Rollouts
    prompts: Sequence[Prompt]
    engine: Engine
    reward: Reward
    tokenise: Callable[[Group], TokenGroup]
    read: Callable[[frozenset[Head], Sequence[Item]], dict[Head, Rows]]
    reference: Callable[[Sequence[Item]], Rows] | None
    sampling: Sampling
    prompts_per_step: int
    tokens_per_microbatch: int
    seed: int
    ledger: Ledger
    provides: frozenset[Need]
    needs: frozenset[Need]
    skip_flat: bool
    ref_is_generator: bool = False
    behaviour_is_exact: bool = True
    partner: Engine | None = None
    collected: Callable[[int], None] | None = None
    carried: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    offline: Sequence[Item] = ()
    items: list[Item] = field(default_factory=list)
    kept: list[Item] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)

    def step(self, index: int) -> Step:
        rollout, update = divmod(index, self.plan.updates)
        if update == 0:
            fresh, self.metrics = self.collect(rollout)
            self.kept = [*self.kept, *fresh] if self.plan.accumulate else fresh
            self.items = self.kept
            if self.collected is not None:
                self.collected(rollout)
        chosen = self._share(rollout, update)
        self.ledger.tokens_trained += sum(i.tokens.size for i in chosen if not i.counted_only)
        return Step(micro_batches(chosen, self.tokens_per_microbatch), self.metrics)

    def _share(self, rollout: int, update: int) -> list[Item]:
        """The items of one update: a slice of this epoch's keyed permutation of the rollout."""
        per_epoch = max(1, self.plan.updates // self.plan.epochs)
        epoch, part = divmod(update, per_epoch)
        items = [*self.items, *self.offline]
        order = permutation(self.seed, f"rollout-{rollout}", epoch, len(items))
        low, high = len(order) * part // per_epoch, len(order) * (part + 1) // per_epoch
        chosen = [items[i] for i in (order if per_epoch > 1 or self.plan.epochs > 1 else range(len(order)))[low:high]]
        if not self.skip_flat:
            return chosen
        return [piece for item in chosen for piece in split_dead(item)]

    def collect(self, rollout: int) -> tuple[list[Item], dict[str, float]]:
        """One rollout: sampled, scored, credited."""
        groups = self._scored_groups(rollout)
        items = [Item(tokens=self.tokenise(g)) for g in groups]
        with self.ledger.phase("score"):
            items = self._with_logps(items)
        metrics = credit_assignment.summary(groups, items) | credit_assignment.watched(groups)
        items = self._select(items, rollout) if self.plan.select in SELECTIONS else self._credit(items)
        return items, metrics | {"kl_coefficient": self._kl()} if self.plan.kl_target else metrics

    def _scored_groups(self, rollout: int) -> list[Group]:
        """Groups of this rollout's prompts; flat ones are replaced by further prompts while `refill` allows."""
        count = self.prompts_per_step * self.plan.updates // self.plan.epochs
        kept: list[Group] = []
        for attempt in range(self.plan.refill + 1):
            wanted = count - len(kept)
            if wanted == 0:
                break
            start = rollout * count * (self.plan.refill + 1) + attempt * count
            rows = window(self.seed, "prompts", len(self.prompts), start, wanted)
            groups = self._scored([self.prompts[i] for i in rows], rollout, attempt)
            last = attempt == self.plan.refill
            kept += (
                groups
                if last or not self.plan.refill
                else [g for g in groups if credit_assignment.spread(g, unshaped=True) > credit.FLAT]
            )
        return kept

    def _scored(self, prompts: Sequence[Prompt], rollout: int, attempt: int) -> list[Group]:
        sampling = replace(self.sampling, seed=keyed(self.seed, "rollout", rollout, attempt))
        temperatures = self.plan.temperatures
        n = self.plan.completions_per_prompt
        mixed = (
            [replace(sampling, temperature=temperatures[i % len(temperatures)]) for i in range(n)] if temperatures else sampling
        )
        with self.ledger.phase("generate"):
            groups = self._sampled(prompts, n, mixed)
        with self.ledger.phase("score"):
            scores = credit_assignment.checked(groups, self.reward(groups))
        self.ledger.tokens_generated += sum(len(c.tokens or ()) for g in groups for c in g.completions)
        self.ledger.reward_calls += len(groups) * n
        scored = [replace(g, scores=s.values, parts=s.parts) for g, s in zip(groups, scores, strict=True)]
        return [credit_assignment.shaped(g, self.plan) for g in scored]

    def _sampled(self, prompts: Sequence[Prompt], n: int, sampling: Sampling | Sequence[Sampling]) -> list[Group]:
        """A group per prompt; with a partner, the second half of its completions are the partner's (at the same temperatures)."""
        if self.partner is None:
            return self.engine.generate(prompts, n, sampling)
        each, half = per_completion(n, sampling), -(-n // 2)
        others = [replace(s, seed=keyed(s.seed, "partner")) for s in each[half:]]  # else equal weights would say equal things
        own = self.engine.generate(prompts, half, each[:half])
        theirs = self.partner.generate(prompts, len(others), others)
        return [replace(a, completions=a.completions + b.completions, scores=()) for a, b in zip(own, theirs, strict=True)]

    def _with_logps(self, items: list[Item]) -> list[Item]:
        """Old log-probs where later updates or truncated sampling need them, values, and the reference's log-probs."""
        heads = {Head.VALUE} if Need.VALUE in self.needs else set()
        off_policy = self.plan.updates > 1 and Need.OLD_LOGP in self.needs
        if off_policy or not self.behaviour_is_exact:
            heads.add(Head.LOGP)
        if self.plan.kl and self.plan.kl_estimator == "exact":
            heads.add(Head.KL)
        found = self.read(frozenset(heads), items) if heads else {}
        old = found.get(Head.LOGP) or [tuple(torch.tensor(c.behaviour_logp) for c in i.tokens.completions) for i in items]
        ref = old if self.ref_is_generator else self.reference(items) if self.reference else None
        out = []
        for n, item in enumerate(items):
            fields = {"old_logp": old[n]} | ({"ref_logp": ref[n]} if ref else {})
            fields |= {"value": found[Head.VALUE][n]} if Head.VALUE in found else {}
            fields |= {"exact_kl": found[Head.KL][n]} if Head.KL in found else {}
            out.append(replace(item, per_token=fields))
        return out

    def _kl(self) -> float:
        return self.running.get("kl_coefficient", self.plan.kl)

    def _credit(self, items: list[Item]) -> list[Item]:
        """Items with an advantage: per completion, or per token under TOKEN_CREDITS."""
        reward = torch.tensor([i.tokens.group.scores for i in items], dtype=torch.float32)
        if self.plan.mask_truncated and not self.plan.truncated_in_baseline:
            reward = torch.where(torch.tensor([credit_assignment.truncated(i) for i in items]), torch.nan, reward)
        kl = torch.tensor([credit_assignment.sequence_kl(i) for i in items]) if "ref_logp" in items[0].per_token else None
        if self.plan.credit in TOKEN_CREDITS:
            items = credit_assignment.token_credit(items, reward.flatten(), self.plan, beta=self._kl() if kl is not None else 0.0)
        else:
            shaped = reward
            if kl is not None and self.plan.kl:
                shaped = reward - self._kl() * torch.tensor(
                    [credit_assignment.sequence_kl(i, self.plan.kl_estimator) for i in items]
                )
            advantage = self._advantage(shaped)
            items = [replace(i, per_completion={"advantage": tuple(a)}) for i, a in zip(items, advantage.tolist(), strict=True)]
        if self.plan.kl_target and kl is not None:
            adapted = kl_control.adaptive_kl(
                self._kl(), float(kl.mean()), target=self.plan.kl_target, horizon=self.plan.kl_horizon, episodes=kl.numel()
            )
            self.running["kl_coefficient"] = adapted
        return [self._finished(i) for i in items]

    def _advantage(self, reward: Tensor) -> Tensor:
        if self.plan.credit == "none":
            return credit.fixed_baseline(reward, baseline=self.plan.baseline)
        if self.plan.credit != "running_baseline":
            return CREDITS[self.plan.credit](reward)
        state = torch.tensor(self.running.get("baseline", float("nan")))
        advantage, state = credit.running_baseline(reward, state)
        self.running["baseline"] = float(state)
        return advantage

    def _finished(self, item: Item) -> Item:
        """Drops what the objective will not read, so that buffers stay small, and sets the weight of what must not count."""
        drop = {"exact_kl"}
        if self.plan.updates == 1:
            drop.add("old_logp")
        if Need.REF_LOGP not in self.needs:
            drop.add("ref_logp")
        item = replace(item, per_token={k: v for k, v in item.per_token.items() if k not in drop})
        return credit_assignment.weighted(item, mask_truncated=self.plan.mask_truncated)

    def _select(self, items: list[Item], rollout: int) -> list[Item]:
        """One pair of each group, or its best alone; ties broken by keyed numbers, identical texts dropped."""
        scores = torch.tensor([i.tokens.group.scores for i in items], dtype=torch.float64)
        uniform = torch.from_numpy(rng(self.seed, "ties", rollout).random(scores.shape))
        size = scores.shape[1]
        if self.plan.select == "best":
            best = selection.best_of(scores, uniform).tolist()
            return [self._finished(items[b // size].only([b % size])) for b in best]
        pairs = self._pairs(scores, uniform, rollout).tolist()
        kept = [credit_assignment.pair_item(items[w // size], w % size, loser % size) for w, loser in pairs]
        return [self._finished(i) for i in kept if i is not None]

    def _pairs(self, scores: Tensor, uniform: Tensor, rollout: int) -> Tensor:
        if self.plan.select == "best_vs_worst":
            return selection.best_vs_worst(scores, uniform)
        drawn = torch.from_numpy(rng(self.seed, "opponents", rollout).random(scores.shape))
        if self.plan.select == "best_vs_random":
            return selection.best_vs_random(scores, uniform, drawn)
        return selection.rejection_pair(scores, drawn, temperature=self.plan.rejection_temperature)

    def state_dict(self) -> dict[str, Any]:
        return {
            "items": [example_codec.to_json(i) for i in self.items],
            "metrics": self.metrics,
            "running": self.running,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.items = self.kept = [example_codec.from_json(i) for i in state["items"]]
        self.metrics, self.running = dict(state["metrics"]), dict(state["running"])
