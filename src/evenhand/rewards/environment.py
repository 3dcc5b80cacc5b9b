"""What an environment gave for the turns of an answer, as its reward."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evenhand.errors import UserError
from evenhand.types import Completion, Group, Scores


class EnvironmentReward:
    """The sum of the rewards of an answer's turns, each earned at the last token of its turn: credits per token and per turn read
    it there. NaN for an answer whose environment failed, and for one of the data.

    >>> from evenhand.types import Message, Prompt, Turn
    >>> turns = tuple(Turn(messages=(Message("assistant", "Ask."),), tokens=2, written=True, reward=r) for r in (0.5, 1.0))
    >>> answer = Completion(content="Ask.", tokens=(1, 2, 1, 2), turns=turns)
    >>> EnvironmentReward()([Group(prompt=Prompt(content="Hi"), completions=(answer,))])
    [Scores(values=(1.5,), parts={}, earned=((0.0, 0.5, 0.0, 1.0),))]
    """

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [self._group(group) for group in groups]

    def _group(self, group: Group) -> Scores:
        for completion in group.completions:
            if not completion.turns and completion.tokens is not None:
                raise UserError(
                    "the answer was not written in an environment", where=f"reward environment, prompt {group.prompt.id}",
                    fix="add `environment:` to the experiment or the arm, or use another reward",
                )  # fmt: skip
        values = tuple(math.nan if c.failed or not c.turns else sum(t.reward for t in c.turns) for c in group.completions)
        return Scores(values, {}, tuple(map(earned_by_turn, group.completions)))


def earned_by_turn(completion: Completion) -> tuple[float, ...]:
    """The reward of each turn at its last token [len(tokens)], 0 elsewhere."""
    return tuple(
        turn.reward if turn.written and place == turn.tokens - 1 else 0.0
        for turn in completion.turns
        for place in range(turn.tokens)
    )
