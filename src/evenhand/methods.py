"""The poster page: every method is one expression over five coordinates (source, signal, credit, objective, reference).

A function here returns a `Method`; its keyword parameters are the method's hyper-parameters in an experiment file, its
docstring the method's row in docs/methods.md. `steps` and `max_tokens`, where a method asks for them, come from the experiment.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from evenhand.objectives import BradleyTerry, Combined, Kto, Likelihood, Pairwise, PolicyGradient, Transport
from evenhand.protocols import Objective
from evenhand.train.rollouts import Rollouts
from evenhand.types import Need

DEMONSTRATIONS, PREFERENCES, BINARY, PROMPTS = "demonstrations", "preferences", "binary", "prompts"


@dataclass(frozen=True, kw_only=True)
class Method:
    """Five coordinates. `data` names the split it learns from; `rollouts` is None for a fixed dataset.

    `reference`: none, start (the policy every arm starts from, frozen) or generator (the policy that sampled the rollout).
    `network`: policy, reward (a scalar head) or value (a policy with a value head). `label_baseline` turns binary labels into
    advantages +-1 - c (TOPR). `learning_rate` is the default where the experiment names none.
    """

    objective: Objective
    data: str
    rollouts: Rollouts | None = None
    reference: str = "none"
    network: str = "policy"
    label_baseline: float | None = None
    learning_rate: float = 1e-6

    @property
    def online(self) -> bool:
        return self.rollouts is not None

    @property
    def provides(self) -> frozenset[Need]:
        """What this method's source puts into its batches; `objective.needs` must be within it."""
        reference = {Need.REF_LOGP, Need.MISMATCHED} if self.reference != "none" else set()
        always = {Need.STATISTICS, Need.SCORE}
        if self.rollouts is None:
            credit = {Need.PAIRS} if self.data == PREFERENCES else {Need.SCORE}
            labels = {Need.ADVANTAGE, Need.BEHAVIOUR_LOGP} if self.label_baseline is not None else set()
            return frozenset(always | reference | credit | labels)
        selected = {"best_vs_worst": {Need.PAIRS}, "best": set()}.get(self.rollouts.select, {Need.ADVANTAGE})
        value = {Need.VALUE} if self.network == "value" else set()
        return frozenset(always | reference | selected | value | {Need.OLD_LOGP, Need.BEHAVIOUR_LOGP})


METHODS: dict[str, Callable[..., Method]] = {}
F = TypeVar("F", bound=Callable[..., Method])


def method(function: F) -> F:
    """Registers a method under its function's name."""
    METHODS[function.__name__] = function
    return function


def build(name: str, parameters: Mapping[str, Any], *, steps: int, max_tokens: int) -> Method:
    """The method `name` with its parameters; `steps` and `max_tokens` are the experiment's, where the method asks for them."""
    known = {"steps": steps, "max_tokens": max_tokens}
    asked = inspect.signature(METHODS[name]).parameters
    return METHODS[name](**{k: v for k, v in known.items() if k in asked}, **parameters)


def _pairs(loss: str, *, reference: str = "start", rate: float = 5e-7, **parameters: float) -> Method:
    return Method(objective=Pairwise(loss=loss, parameters=parameters), data=PREFERENCES, reference=reference, learning_rate=rate)


# ---- likelihood and reward models -----------------------------------------------------------------------------------


@method
def sft(*, reduce: str = "token_mean") -> Method:
    """Supervised fine-tuning: maximum likelihood of demonstrations."""
    return Method(objective=Likelihood(reduce=reduce), data=DEMONSTRATIONS, learning_rate=2e-5)


@method
def reward_model(*, margin_scale: float = 0.0, centring: float = 0.01) -> Method:
    """Bradley-Terry reward model on all pairs of each group (Ouyang et al. 2022, eq. 1)."""
    objective = BradleyTerry(margin_scale=margin_scale, centring=centring)
    return Method(objective=objective, data=PREFERENCES, network="reward", learning_rate=2e-6)


# ---- offline preference methods -------------------------------------------------------------------------------------


@method
def dpo(*, beta: float = 0.1) -> Method:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7)."""
    return _pairs("dpo", beta=beta)


# ---- online methods -------------------------------------------------------------------------------------------------


@method
def rloo(*, completions_per_prompt: int = 8, kl: float = 0.05) -> Method:
    """REINFORCE with a leave-one-out baseline, KL in the reward (Ahmadian et al. 2024, arXiv:2402.14740)."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit="leave_one_out", kl=kl)
    objective = PolicyGradient(surrogate="reinforce", reduce="sequence_sum")
    return Method(objective=objective, data=PROMPTS, rollouts=rollouts, reference="start" if kl else "none")


@method
def grpo(*, completions_per_prompt: int = 8, kl: float = 0.04, low: float = 0.2, high: float = 0.2, updates: int = 1) -> Method:
    """Group-relative policy optimisation: z-scored rewards, token clip, k3 in the loss (Shao et al. 2024, arXiv:2402.03300)."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit="standardise", updates=updates)
    objective = PolicyGradient(surrogate="clipped", parameters={"low": low, "high": high}, reduce="sequence_mean", kl=kl)
    return Method(objective=objective, data=PROMPTS, rollouts=rollouts, reference="start" if kl else "none")


__all__ = ["METHODS", "Combined", "Kto", "Method", "Transport", "method"]
