"""Credits: from the rewards of a rollout to advantages. A new one is a function from rewards to advantages under `@credit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from evenhand.core import credit as core
from evenhand.core import kl_control
from evenhand.registry import Registry
from evenhand.train.examples import Example
from evenhand.train.rollouts.experience import Credit, Experience, stated
from evenhand.train.rollouts.shaping import truncated
from evenhand.types import Head

CREDITS: Registry[Credit] = Registry("credit")
"""By the names that an experiment file may hold, each with its default settings."""


@dataclass(frozen=True)
class CompletionCredit(Credit):
    """Reward [P, G] -> advantage [P, G], per completion; NaN in the reward counts nowhere and gets 0."""

    name: str
    function: Callable[..., Tensor]

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return experience.credited(self.function(experience.completion_reward))

    @override
    def about(self) -> str:
        return f"{self.name}: {stated(self.function)}"


class GroupCredit(CompletionCredit):
    """A credit that compares the completions of one prompt with each other."""

    compares: ClassVar[bool] = True


def credit(
    name: str, kind: type[CompletionCredit] = GroupCredit, *, revision: int = 0
) -> Callable[[Callable[..., Tensor]], CompletionCredit]:
    """Decorator: the function below, reward [P, G] -> advantage [P, G], is the credit called `name`.

    Its docstring says what it does, the formula on a line that begins with a backtick. The `kind` CompletionCredit is for one
    that looks across prompts. It replaces the function, and is what `Rollouts(credit=...)` takes. `revision`: see
    `registry.revisions`.

    >>> @credit("doubled")
    ... def doubled(reward: Tensor) -> Tensor:
    ...     return 2 * core.centre(reward)
    >>> CREDITS["doubled"] is doubled, doubled.compares
    (True, True)
    >>> del CREDITS.entries["doubled"]
    """

    def add(function: Callable[..., Tensor]) -> CompletionCredit:
        made = kind(name, function)
        CREDITS.register(name, revision=revision)(made)
        return made

    return add


centre = credit("centre")(core.centre)
standardise = credit("standardise")(core.standardise)
standardise_population = credit("standardise_population")(partial(core.standardise, ddof=0))
leave_one_out = credit("leave_one_out")(core.leave_one_out)
rank = credit("rank")(core.rank)
batch_baseline = credit("batch_baseline", CompletionCredit)(core.batch_baseline)


@dataclass(frozen=True)
class FixedBaseline(Credit):
    """The same constant taken off every reward."""

    baseline: float = 0.0

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return experience.credited(core.fixed_baseline(experience.completion_reward, baseline=self.baseline))

    @override
    def about(self) -> str:
        return f"none: {stated(core.fixed_baseline)}"


@dataclass(frozen=True)
class RunningBaseline(Credit):
    """A moving average of the rewards of earlier rollouts taken off, which it remembers."""

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        known = torch.tensor(experience.memory.get("baseline", float("nan")))
        advantage, moved = core.running_baseline(experience.completion_reward, known)
        experience.memory["baseline"] = float(moved)
        return experience.credited(advantage)

    @override
    def about(self) -> str:
        return f"running_baseline: {stated(core.running_baseline)}"


@dataclass(frozen=True, kw_only=True)
class LearnedValue(Credit):
    """An advantage per token: the reward-to-go less the value of the state, as it is (REINFORCE with a learned baseline)."""

    reads: ClassVar[frozenset[Head]] = frozenset({Head.VALUE})
    per_completion: ClassVar[bool] = False

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return experience.credited_tokens(*token_advantages(experience, gamma=1.0, lam=1.0)[:2])

    @override
    def about(self) -> str:
        return f"value: {stated(core.gae)}"


@dataclass(frozen=True, kw_only=True)
class Gae(LearnedValue):
    """Generalised advantages per token, whitened over the whole rollout (PPO).

    With `bootstrap_truncated` an answer that the limit cut goes on for the value before its last token instead of ending there.
    """

    gamma: float = 1.0
    lam: float = 0.95
    bootstrap_truncated: bool = False

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        ends = [end for e in experience.examples for end in truncated(e)]
        cut = torch.tensor(ends) if self.bootstrap_truncated else None
        advantage, returns, mask = token_advantages(experience, gamma=self.gamma, lam=self.lam, bootstrap=cut)
        return experience.credited_tokens(core.whiten(advantage, mask), returns)

    @override
    def about(self) -> str:
        return f"gae: {stated(core.gae)}"


CREDITS.register("none")(FixedBaseline())
CREDITS.register("running_baseline")(RunningBaseline())
CREDITS.register("value")(LearnedValue())
CREDITS.register("gae")(Gae())


def token_advantages(
    experience: Experience, *, gamma: float, lam: float | Tensor, bootstrap: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Advantage, return and mask [P G, C] from values, 0 where none was read, with the KL off the reward token by token; nothing
    where unscored. What was earned on the way counts where it was, and the rest of the reward at the last token."""
    reward, beta = experience.reward.flatten(), experience.kl_coefficient
    completions = [c for e in experience.examples for c in e.tokens.completions]
    mask = pad_sequence(
        [torch.tensor(c.mask) & known for c, known in zip(completions, ~reward.isnan(), strict=True)], batch_first=True
    )
    old = padded(experience, "old_logp")
    value = padded(experience, "value") if "value" in experience.examples[0].per_token else torch.zeros_like(old)
    estimate = pad_sequence(experience.token_kl(), batch_first=True) if beta else None
    early = torch.where(mask, earned(experience, mask.shape[-1]), 0.0)
    left = reward.nan_to_num(0.0) - early.sum(-1)
    rewards = early + kl_control.token_rewards(left, old, old, mask, beta=beta, estimate=estimate)
    return *core.gae(rewards, value, mask, gamma=gamma, lam=lam, bootstrap=bootstrap), mask


def earned(experience: Experience, width: int) -> Tensor:
    """What a reward says was earned at each token [P G, C], 0 where it does not say."""
    completions = [c for e in experience.examples for c in e.tokens.group.completions]
    found = torch.zeros(len(completions), width)
    for n, completion in enumerate(completions):
        row = torch.tensor((completion.earned or ())[:width])
        found[n, : len(row)] = row
    return found


def padded(experience: Experience, name: str) -> Tensor:
    """What was read of every completion [P G, C], 0 beyond its end."""
    return pad_sequence([row for e in experience.examples for row in e.per_token[name]], batch_first=True)
