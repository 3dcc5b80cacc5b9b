"""A reward as a judge: a program or a reward model scores both answers, and the higher score wins."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from evenhand.judges.verdict import Comparison, Order, Progress, Status, Verdict
from evenhand.protocols import Reward
from evenhand.types import Completion, Group


class RewardJudge:
    """Scores that differ by at most `tie` tie. An answer that could not be scored (NaN) leaves its pair at 1/2, marked invalid.

    Two answers of the same text are scored once, so that they tie: a reward model's last digits depend on what is computed
    beside an answer. There is no order in which answers are shown, so that a verdict has one `Order`.
    """

    def __init__(self, reward: Reward, *, name: str, tie: float = 1e-9) -> None:
        self.reward, self.name, self.tie = reward, name, tie

    @property
    def revision(self) -> str:
        return hashlib.blake2b(f"{self.name} {self.tie}".encode(), digest_size=8).hexdigest()

    def __call__(self, comparisons: Sequence[Comparison], progress: Progress | None = None) -> list[Verdict]:
        ours = self._scores([(c, c.a) for c in comparisons])
        others = iter(self._scores([(c, c.b) for c in comparisons if not _same_text(c)]))
        theirs = [score if _same_text(c) else next(others) for c, score in zip(comparisons, ours, strict=True)]
        return [verdict_of(a, b, self.tie) for a, b in zip(ours, theirs, strict=True)]

    def repeated(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """The first answers of the comparisons against themselves, scored twice over: a reward that repeats itself says 1/2."""
        first, again = (self._scores([(c, c.a) for c in comparisons]) for _ in range(2))
        return [verdict_of(a, b, self.tie) for a, b in zip(first, again, strict=True)]

    def _scores(self, answers: Sequence[tuple[Comparison, Completion]]) -> list[float]:
        groups = [Group(prompt=c.prompt, completions=(x,)) for c, x in answers]
        return [s.values[0] for s in self.reward(groups)]


def _same_text(c: Comparison) -> bool:
    return (c.a.content, c.a.finish) == (c.b.content, c.b.finish)


def verdict_of(a: float, b: float, tie: float) -> Verdict:
    """1 when `a` is the higher score, 0 when `b` is, 1/2 when they are within `tie` or one is missing.

    >>> [verdict_of(*scores, tie=0.1).outcome for scores in ((2, 1), (1, 2), (1, 1.05), (float("nan"), 1))]
    [1.0, 0.0, 0.5, 0.5]
    """
    if math.isnan(a) or math.isnan(b):
        outcome, status = 0.5, Status.INVALID
    elif a == b or abs(a - b) <= tie:  # equal infinities differ by NaN
        outcome, status = 0.5, Status.SCORED
    else:
        outcome, status = float(a > b), Status.SCORED
    order = Order(a_first=True, outcome=outcome, status=status)
    return Verdict(outcome=outcome, orders=(order,), score_a=float(a), score_b=float(b))
