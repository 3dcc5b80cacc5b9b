"""Credits that need no reward: the teacher's log-probs are the signal, or the objective itself compares with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch.nn.utils.rnn import pad_sequence
from typing_extensions import override

from evenhand.core import distillation
from evenhand.train.examples import Example, live_alone
from evenhand.train.rollouts.experience import HINDSIGHT, Credit, Experience, stated
from evenhand.types import Completion, Group, Need, Prompt


def over_the_policy(experience: Experience, teacher: str, early: float = 0.0) -> list[Example]:
    """The examples with the teacher's log-probs less the policy's own as advantages; `teacher` names its field."""
    rows = [
        distillation.weighted_early(distillation.token_advantage(own, told), early=early)
        for e in experience.examples
        for own, told in zip(e.per_token["old_logp"], e.per_token[teacher], strict=True)
    ]
    return experience.credited_tokens(pad_sequence(rows, batch_first=True))


@dataclass(frozen=True)
class TeacherAdvantage(Credit):
    """`A_t = log T(y_t) - log S(y_t)` at every token, T the teacher and S the policy at the rollout's weights; with `early` the
    first tokens weigh more."""

    per_completion: ClassVar[bool] = False
    rewarded: ClassVar[bool] = False
    early: float = 0.0

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return over_the_policy(experience, "ref_logp", self.early)

    @override
    def about(self) -> str:
        return stated(distillation.token_advantage)


@dataclass(frozen=True)
class Uncredited(Credit):
    """Every answer alike: what is learned from it is the objective's matter."""

    provides: ClassVar[frozenset[Need]] = frozenset()
    per_completion: ClassVar[bool] = False
    rewarded: ClassVar[bool] = False

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return list(experience.examples)


@dataclass(frozen=True, kw_only=True)
class InHindsight(Credit):
    """What the policy says with a good answer z before it: the best other answer of the group whose reward is at least `success`.

    Where there is none nothing is learned of an answer. `words` say how the prompt and z are put to the policy, in the last turn
    of the user: `{prompt}` and `{answer}`.
    """

    per_completion: ClassVar[bool] = False
    hindsight: ClassVar[bool] = True
    success: float
    words: str

    def shown(self, group: Group) -> list[int | None]:
        """Which answer is shown beside each: the place of the best of the others; of equals the first."""
        good = [i for i, score in enumerate(group.scores) if score >= self.success]  # a NaN is no success
        best_first = sorted(good, key=lambda i: (-group.scores[i], i))
        return [next((j for j in best_first if j != i), None) for i in range(len(group.scores))]

    def asked(self, prompt: Prompt, answer: Completion) -> Prompt:
        """The prompt with a good answer beside it."""
        content = prompt.content
        if isinstance(content, str):
            return replace(prompt, content=self._filled(content, answer), id="")
        last = max((i for i, turn in enumerate(content) if turn.role == "user"), default=len(content) - 1)
        told = replace(content[last], content=self._filled(content[last].content, answer))
        return replace(prompt, content=(*content[:last], told, *content[last + 1 :]), id="")

    def _filled(self, prompt: str, answer: Completion) -> str:
        values = {"prompt": prompt, "answer": answer.text}
        return re.sub(r"\{(prompt|answer)\}", lambda name: values[name[1]], self.words)


@dataclass(frozen=True, kw_only=True)
class SelfTeacherAdvantage(InHindsight):
    """`A_t = log pi(y_t | x, z, y_<t) - log pi(y_t | x, y_<t)` at every token, z a good answer to the same prompt x."""

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return over_the_policy(experience, HINDSIGHT)


@dataclass(frozen=True, kw_only=True)
class ShownGood(InHindsight):
    """Every answer beside a good one to the same prompt, as the teacher reads it; the others count in denominators alone."""

    provides: ClassVar[frozenset[Need]] = frozenset()

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        return [piece for e in experience.examples for piece in live_alone(e, by_prompt(e.shown))]


def by_prompt(shown: Sequence[tuple[int, ...]]) -> list[int]:
    """The places of answers that are shown something, those with one prompt together.

    >>> by_prompt([(7,), (), (8,), (7,)])
    [0, 3, 2]
    """
    return sorted((i for i, prompt in enumerate(shown) if prompt), key=lambda i: shown.index(shown[i]))
