"""A scored rollout as a credit sees it, and what a credit is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from evenhand.seeding import rng
from evenhand.train.examples import Example
from evenhand.train.rollouts.kl import ESTIMATORS, sequence_kl
from evenhand.types import Completion, Group, Head, Need, Prompt

HINDSIGHT = "hindsight_logp"
"""The field of log-probs [len(completion)] that the policy has where it was shown a good answer to the prompt."""


@dataclass(frozen=True, kw_only=True)
class Experience:
    """One rollout: P groups of G completions, tokenised, scored and read.

    `reward` [P, G]: length penalties taken off, a KL not; NaN counts nowhere. `memory` holds numbers that a credit keeps from one
    rollout to the next; it is JSON and part of every checkpoint.
    """

    examples: Sequence[Example]
    reward: Tensor
    kl_coefficient: float
    kl_estimator: str
    memory: dict[str, float]
    seed: int
    rollout: int

    @property
    def completion_reward(self) -> Tensor:
        """The reward [P, G] less the coefficient times the KL of each whole completion."""
        if not self.kl_coefficient:
            return self.reward
        return self.reward - self.kl_coefficient * sequence_kl(self.examples, self.kl_estimator)

    def token_kl(self) -> list[Tensor]:
        """The KL at every token: a row per completion [P G]."""
        return [row for e in self.examples for row in ESTIMATORS[self.kl_estimator](e)]

    @property
    def lengths(self) -> Tensor:
        """Counted tokens of every completion [P, G]."""
        return torch.tensor([[sum(c.mask) for c in e.tokens.completions] for e in self.examples])

    def part(self, name: str) -> Tensor:
        """A part of the scores [P, G], as the reward or the sampler named it; NaN where a group has none of that name."""
        missing = (torch.nan,) * self.reward.shape[1]
        return torch.tensor([e.tokens.group.parts.get(name, missing) for e in self.examples], dtype=torch.float32)

    @property
    def scores(self) -> Tensor:
        """The scores [P, G] in float64, for comparing them."""
        return torch.tensor([e.tokens.group.scores for e in self.examples], dtype=torch.float64)

    def uniform(self, name: str) -> Tensor:
        """Random numbers [P, G] in [0, 1), keyed by seed, rollout and `name`."""
        return torch.from_numpy(rng(self.seed, name, self.rollout).random(self.reward.shape))

    def credited(self, advantage: Tensor) -> list[Example]:
        """The examples with an advantage [P, G] per completion."""
        return [
            replace(e, per_completion={"advantage": tuple(a)}) for e, a in zip(self.examples, advantage.tolist(), strict=True)
        ]

    def credited_tokens(self, advantage: Tensor, returns: Tensor | None = None) -> list[Example]:
        """The examples with an advantage and, for a value to learn, a return per token, [P G, C] each, right-padded."""
        known = {"token_advantage": advantage} | ({} if returns is None else {"returns": returns})
        out, at = [], 0
        for e in self.examples:
            rows = [(n, len(c.ids)) for n, c in enumerate(e.tokens.completions, at)]
            at += len(rows)
            fields = {name: tuple(of[n, :length].clone() for n, length in rows) for name, of in known.items()}
            out.append(replace(e, per_token={**e.per_token, **fields}))
        return out


class Credit(Protocol):
    """From a rollout to what is trained on: its examples with advantages, or those that a selection keeps.

    A frozen dataclass without state of its own: what it remembers is in `Experience.memory`.
    """

    provides: ClassVar[frozenset[Need]] = frozenset({Need.ADVANTAGE})
    reads: ClassVar[frozenset[Head]] = frozenset()
    """What the policy must be asked for first; `Head.VALUE` needs a method with a value network."""
    per_completion: ClassVar[bool] = True
    """One advantage for all tokens of a completion: where it is zero, nothing is learned from it."""
    compares: ClassVar[bool] = False
    """Compares the completions of one prompt with each other: a flat group then teaches nothing."""
    rewarded: ClassVar[bool] = True
    """Learns by rewards; False for one that needs none, as a teacher's."""
    against_greedy: ClassVar[bool] = False
    """Wants the reward of each prompt's greedy answer, as the part GREEDY; that answer is sampled and scored, and not trained
    on."""

    hindsight: ClassVar[bool] = False
    """Wants the policy's log-probs of every answer once it was shown a good one, in the field HINDSIGHT; where the objective
    compares whole distributions, the prompts that show it: see `Shows`."""

    def __call__(self, experience: Experience) -> list[Example]: ...

    @property
    def least(self) -> int:
        """Completions of a prompt below which every advantage is 0, whatever was answered."""
        return 1

    def about(self) -> str:
        """One line for the manual: the formula of the class's docstring, or its first line."""
        return stated(type(self))


class Shows(Protocol):
    """A credit with `hindsight`: which answer is shown beside each of a group, and how."""

    def shown(self, group: Group) -> list[int | None]: ...

    def asked(self, prompt: Prompt, answer: Completion) -> Prompt: ...


def stated(function: Any) -> str:
    """The formula that a docstring states: its first line that begins with one, up to the explanation; else its first sentence.

    >>> from evenhand.core import credit
    >>> stated(credit.centre)
    '`A_i = r_i - mean(r)` within each group'
    """
    lines = (inspect.getdoc(getattr(function, "func", function)) or "").split("\n")  # of a partial, what it is of
    line = next((line for line in lines if line.startswith("`")), lines[0])
    return re.split(r": |\.(?=\s+[A-Z`]|$)", line)[0]
