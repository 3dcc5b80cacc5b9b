"""What a method is: five coordinates, and what follows from them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from evenhand.core import kl
from evenhand.core.distillation import generalised_jsd
from evenhand.models.divergence import OF_BOTH
from evenhand.models.gate import GateSettings
from evenhand.objectives import Labelled, Pairwise
from evenhand.protocols import Objective
from evenhand.registry import Registry
from evenhand.train.config import ReferenceUpdate, Staleness
from evenhand.train.policies import DATA, INITIAL_POLICY, NONE
from evenhand.train.rollouts import Rollouts
from evenhand.types import Head, Need

DEMONSTRATIONS, PREFERENCES, BINARY, PROMPTS = "demonstrations", "preferences", "binary", "prompts"
RATED = "rated"
"""Answers with ratings by several attributes, all rows alike: the parts of their groups."""
COMPARISONS = "comparisons"
"""Preference pairs as questions: two answers in one text, to be continued with the letter of the better one."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """Five coordinates. `data` names the split it learns from; `rollouts` is None for a fixed dataset.

    `reference` is a name of `train.policies`: none, start (the initial policy, frozen), generator (what sampled the rollout) or
    teacher (another model, that the arm names). `divergence` is what `Head.KL` measures against the reference: None its exact
    KL, else the share of a generalised Jensen-Shannon divergence. `network`: policy, reward (a scalar head), value (a policy
    with a value head) or critic (a policy and a value network of its own). `label_baseline` turns binary labels into advantages
    +-1 - c (TOPR). `temperature` divides the logits in training; None is the sampler's for rollouts and 1 for fixed data.
    `learning_rate` is the default where the experiment names none. With `reference_update` the reference is the start at first,
    and follows the policy. `serves` says how a reward model scores answers, where it is not by its one score alone. `outputs`
    names what a reward model reads instead of one score, and `head_power` how small its head begins, `(H + 1) ** -power`; with
    `gate` it is another reward model, frozen, whose outputs a gate mixes."""

    objective: Objective
    data: str
    rollouts: Rollouts | None = None
    reference: str = NONE
    network: str = "policy"
    label_baseline: float | None = None
    temperature: float | None = None
    divergence: float | None = None
    learning_rate: float = 1e-6
    reference_update: ReferenceUpdate | None = None
    serves: Mapping[str, Any] | None = None
    outputs: tuple[str, ...] = ()
    head_power: float = 0.5
    gate: GateSettings | None = None

    def following(self, update: ReferenceUpdate | None) -> Method:
        """The same with a reference that follows the policy; as it is where `update` is None."""
        return self if update is None else replace(self, reference_update=update)

    def stale(self, staleness: Staleness | None) -> Method:
        """The same with rollouts of older weights; as it is where `staleness` is None, or it samples nothing."""
        if staleness is None or self.rollouts is None:
            return self
        older = replace(self.rollouts.schedule, staleness=staleness.steps, proximal=staleness.proximal)
        return replace(self, rollouts=replace(self.rollouts, schedule=older))

    @property
    def online(self) -> bool:
        return self.rollouts is not None

    @property
    def rewarded(self) -> bool:
        """Samples, and learns by a reward; a method that only learns from a teacher asks for none."""
        return self.rollouts is not None and self.rollouts.credit.rewarded

    @property
    def measure(self) -> Callable[[Tensor, Tensor], Tensor]:
        """How far two distributions are from each other, for `Head.KL`."""
        return kl.exact if self.divergence is None else partial(generalised_jsd, beta=self.divergence)

    @property
    def split(self) -> str:
        """The split of the data it reads where the arm names none: labels and questions are made of the preference pairs,
        and answers with ratings may stand there."""
        return PREFERENCES if self.data in (BINARY, COMPARISONS, RATED) else self.data

    def logit_temperature(self, sampling: float) -> float:
        """What the logits are divided by in every log-prob of this method, given the sampler's temperature."""
        if self.temperature is not None:
            return self.temperature
        return sampling or 1.0 if self.online else 1.0

    @property
    def skips_zero_advantage(self) -> bool:
        """True when a completion with zero advantage has exactly zero gradient, so that the loop need not run it."""
        per_completion = self.rollouts is not None and self.rollouts.credit.per_completion
        return per_completion and getattr(self.objective, "skips_zero_advantage", False)

    @property
    def compares_exactly(self) -> bool:
        """True when the policy is asked for what only both whole distributions tell: an exact KL to the initial policy, or its
        entropy."""
        in_reward = self.rollouts is not None and Head.KL in self.rollouts.kl.reads
        return bool(OF_BOTH.keys() & self.objective.reads) or in_reward

    @property
    def rounds(self) -> bool:
        """True where training falls into rounds: a selection from many rollouts, trained on for many steps."""
        plan = self.rollouts
        return plan is not None and Need.PAIRS in plan.credit.provides and plan.schedule.updates > 1

    @property
    def implied_reward(self) -> dict[str, Any] | None:
        """How the trained network scores answers as a reward model; None where it does not.

        A scalar head gives a score; a pairwise policy beta * (log pi - log ref), without a reference beta * log pi; a preference
        model compares all answers of a group.
        """
        if self.network == "reward":
            return {"kind": "score"} if self.serves is None else dict(self.serves)
        if self.data == COMPARISONS:
            return {"kind": "preference"}
        if isinstance(self.objective, Labelled) and (self.objective.loss, self.objective.shift) == ("bco", "none"):
            return {"kind": "policy", "beta": self.objective.beta, "reference": True}
        if isinstance(self.objective, Pairwise) and self.objective.loss in ("dpo", "local") and not self.online:
            scaled = {} if self.temperature is None else {"temperature": self.temperature}
            beta, against = self.objective.parameters["beta"], self.reference == INITIAL_POLICY
            return {"kind": "policy", "beta": beta, "reference": against, **scaled}
        return None

    @property
    def provides(self) -> frozenset[Need]:
        """What this method's source puts into its batches; `objective.needs` must be within it."""
        reference = {Need.REF_LOGP, Need.MISMATCHED} if self.reference != NONE else set()
        always = {Need.STATISTICS, Need.SCORE}
        if self.rollouts is None:
            own = {PREFERENCES: {Need.PAIRS, Need.UNIFORM}, RATED: {Need.RATINGS}}
            credit = own.get(self.data, {Need.SCORE})
            labels = {Need.ADVANTAGE} if self.label_baseline is not None else set()
            if labels and reference:
                labels.add(Need.BEHAVIOUR_LOGP)
            return frozenset(always | reference | credit | labels)
        value = {Need.VALUE} if self.network in ("value", "critic") else set()
        given = {Need.GIVEN} if self.rollouts.exploration.partner == DATA else set()
        sampled = {Need.OLD_LOGP, Need.BEHAVIOUR_LOGP} - ({Need.BEHAVIOUR_LOGP} if given else set())
        return frozenset(always | reference | self.rollouts.credit.provides | value | given | sampled)


METHODS = Registry[Callable[..., Method]]("method", facts=("space", "of", "differs", "elsewhere"))


def method(function: Callable[..., Method] | None = None, /, **facts: Any) -> Any:
    """Decorator, bare or with facts: the function below is the method of its name. `was` is the name that it had before.

    `space`: the settings that are tuned beside the learning rate, each with its values or `{"log": (low, high)}`. `of` and
    `differs`: the method it is made of by changing one thing, and that thing, for the family tree. `elsewhere`: its name in other
    tools, after a `~` where that is a variant or another loss. Equation, source, needs and reductions are read off what it
    returns and its docstring.
    """
    return METHODS.register(**facts) if function is None else METHODS.register()(function)


def build(name: str, parameters: Mapping[str, Any], *, steps: int, max_tokens: int) -> Method:
    """The method `name` with its parameters; `steps` and `max_tokens` are the experiment's, where the method asks for them."""
    known = {"steps": steps, "max_tokens": max_tokens}
    asked = inspect.signature(METHODS[name]).parameters
    return METHODS[name](**{k: v for k, v in known.items() if k in asked}, **parameters)
