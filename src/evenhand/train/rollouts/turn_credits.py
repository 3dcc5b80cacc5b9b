"""Credits by turn of answers that were written in an environment: each turn for what the answer earns from there on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from evenhand.core import credit as core
from evenhand.core import turn_credit
from evenhand.train.examples import Example
from evenhand.train.rollouts.credits import CREDITS, earned
from evenhand.train.rollouts.experience import Credit, Experience, stated
from evenhand.types import Completion


@dataclass(frozen=True, kw_only=True)
class TurnCredit(Credit):
    """One advantage per turn of the model: `function` over the rewards-to-go of the prompt's answers at the same turn.

    What was earned inside a turn counts there, the rest of the reward in the last, and a KL in the reward where it arises. An
    answer without an environment has one turn.
    """

    per_completion: ClassVar[bool] = False
    compares: ClassVar[bool] = True
    name: str
    function: Callable[[Tensor], Tensor]
    gamma: float = 1.0

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        number = turn_numbers(experience)
        advantage = turn_credit.by_turn(turn_rewards(experience, number), self.function, gamma=self.gamma)
        rows = [a[n.clamp(min=0)].where(n >= 0, 0.0) for a, n in zip(advantage.flatten(0, 1), number, strict=True)]
        return experience.credited_tokens(pad_sequence(rows, batch_first=True))

    @override
    def about(self) -> str:
        return f"{self.name}: {stated(turn_credit.by_turn)}, f: {stated(self.function)}"


def turn_numbers(experience: Experience) -> list[Tensor]:
    """Per completion the number of the turn [len] that each token was written in, from 0; -1 for what the model did not write."""
    pairs = (zip(e.tokens.group.completions, e.tokens.completions, strict=True) for e in experience.examples)
    return [_numbers(c, len(tokens.ids)) for pair in pairs for c, tokens in pair]


def _numbers(completion: Completion, length: int) -> Tensor:
    if not completion.turns:
        return torch.zeros(length, dtype=torch.long)
    found, number = [], 0
    for turn in completion.turns:
        found += [number if turn.written else -1] * turn.tokens
        number += turn.written
    return torch.tensor(found)


def turn_rewards(experience: Experience, number: list[Tensor]) -> Tensor:
    """What each turn earned [P, G, K], less the coefficient times its KL; NaN where there is no such turn."""
    turns = max(int(n.max()) for n in number) + 1
    value, beta = experience.reward.flatten(), experience.kl_coefficient
    early = earned(experience, max(len(n) for n in number))
    penalty = experience.token_kl() if beta else [torch.zeros(len(n)) for n in number]
    out = torch.full((len(number), turns), torch.nan)
    for row, n in enumerate(number):
        written, last = n >= 0, int(n.max())
        own = early[row, : len(n)]
        sums = torch.zeros(last + 1).index_add_(0, n[written], (own - beta * penalty[row])[written])
        sums[last] += value[row] - own[written].sum()
        out[row, : last + 1] = sums
    out[value.isnan()] = torch.nan
    return out.reshape(*experience.reward.shape, turns)


turn_centre = TurnCredit(name="turn_centre", function=core.centre)
turn_standardise = TurnCredit(name="turn_standardise", function=core.standardise)
turn_leave_one_out = TurnCredit(name="turn_leave_one_out", function=core.leave_one_out)
for _made in (turn_centre, turn_standardise, turn_leave_one_out):
    CREDITS.register(_made.name)(_made)
