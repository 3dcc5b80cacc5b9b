"""A general preference model as a judge of pairs: every answer is embedded once, whatever it is compared with."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from typing_extensions import override

from evenhand.judges.verdict import Comparison, Order, Progress, Status, Verdict
from evenhand.rewards.model import ModelReward
from evenhand.rewards.tournament import Tournament
from evenhand.types import Completion, Group, Prompt, Scores

Embedding = tuple[float, ...]
LEAST = sys.float_info.min
"""The smallest chance that is told from none."""


@dataclass(frozen=True, slots=True)
class GeneralPreferenceJudge:
    """`P(a preferred to b) = sigmoid(<R v_a, v_b> / tau)`; the same answer is its own equal, and P(a, b) + P(b, a) = 1.

    There is no order in which answers are shown, so that a verdict has one `Order`. The answers to one prompt are embedded in one
    pass, each once: n answers cost n embeddings, and all n (n - 1) / 2 comparisons of them no more.
    """

    model: ModelReward
    tau: float = 0.1
    name: str = field(default="general preference model")

    @property
    def revision(self) -> str:
        return hashlib.blake2b(f"{self.name} {self.tau}".encode(), digest_size=8).hexdigest()

    def __call__(self, comparisons: Sequence[Comparison], progress: Progress | None = None) -> list[Verdict]:
        known = self._embedded(comparisons)
        made = [self._verdict(known[key(c.prompt, c.a)], known[key(c.prompt, c.b)]) for c in comparisons]
        if progress is not None:
            progress(len(made), len(made))
        return made

    def _embedded(self, comparisons: Sequence[Comparison]) -> dict[object, Embedding]:
        """Every distinct answer's embedding, by what it is."""
        asked: dict[str, tuple[Prompt, dict[object, Completion]]] = {}
        for c in comparisons:
            _, answers = asked.setdefault(c.prompt.id, (c.prompt, {}))
            answers.update({key(c.prompt, answer): answer for answer in (c.a, c.b)})
        groups = [Group(prompt=prompt, completions=tuple(answers.values())) for prompt, answers in asked.values()]
        rows = self.model.outputs([self.model.tokens(group) for group in groups])
        keys = [name for _, answers in asked.values() for name in answers]
        return dict(zip(keys, (row for group in rows for row in group), strict=True))

    def _verdict(self, a: Embedding, b: Embedding) -> Verdict:
        import torch

        from evenhand.core.general_preference import general_preference

        v, w = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
        outcome = float(torch.sigmoid(general_preference(v, w) / self.tau))
        return Verdict(outcome=outcome, orders=(Order(a_first=True, outcome=outcome, status=Status.SCORED),))


@dataclass(frozen=True, slots=True)
class GeneralPreferenceReward(Tournament):
    """A general preference model as a reward: the mean chance of an answer against each other one of its group."""

    judge: GeneralPreferenceJudge

    @override
    def unscaled(self) -> LogOdds:
        return LogOdds(self)

    @override
    def roomy(self) -> GeneralPreferenceReward:
        return replace(self, judge=replace(self.judge, model=self.judge.model.roomy()))


@dataclass(frozen=True, slots=True)
class LogOdds:
    """Half the log-odds of each chance that `reward` gives: of two answers the difference is what was learned, `s / tau`."""

    reward: GeneralPreferenceReward

    def unscaled(self) -> LogOdds:
        """It is on that scale already."""
        return self

    def roomy(self) -> LogOdds:
        """See `protocols.TrainedReward`."""
        return LogOdds(self.reward.roomy())

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [Scores(half_log_odds(found.values)) for found in self.reward(groups)]


def half_log_odds(chances: Sequence[float]) -> tuple[float, ...]:
    """Of each chance half the log-odds, always finite: a chance rounded to 1 or 0 counts as the nearest number to it.

    Of two answers the smaller chance tells both, since it is rounded last: one of 1 - 1e-30 is stored as 1.

    >>> [round(v, 3) for v in half_log_odds((1.0, 1e-30))]
    [34.539, -34.539]
    """
    from scipy.special import logit

    known = [float(logit(min(max(chance, LEAST), 1 - 2**-53))) / 2 for chance in chances]
    if len(chances) != 2:
        return tuple(known)
    smaller = min(known)
    return (smaller, -smaller) if chances[0] < chances[1] else (-smaller, smaller)


def key(prompt: Prompt, answer: Completion) -> tuple[object, ...]:
    """What tells an answer from others."""
    return prompt.id, answer.content, answer.tokens, answer.finish
