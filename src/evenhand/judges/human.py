"""People as the judge: verdicts are their labels, and a pair that too few of them have labelled stops what needs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from evenhand.errors import Pending
from evenhand.judges.jury import combined
from evenhand.judges.label_log import Label, LabelLog, answer_name, item_name
from evenhand.judges.verdict import Comparison, Order, Progress, Status, Verdict, settled


class HumanJudge:
    """The labels of a file as verdicts. Raises: Pending where pairs have fewer than `annotators` people's labels.

    A person's outcome on a pair is the mean of their labels (a pair may have been shown twice, the second time the other way
    round); the verdict is the mean over people, each of whom is a vote. With `annotators` 0 nothing is waited for, and a pair
    that nobody has labelled has no usable verdict.
    """

    def __init__(self, labels: Path, annotators: int = 1) -> None:
        self.path, self.annotators = labels, annotators
        self._by_item: dict[str, list[Label]] = {}
        for label in LabelLog(labels).labels:
            if label.scores:
                self._by_item.setdefault(label.item, []).append(label)
        self.people = sorted({label.annotator for own in self._by_item.values() for label in own})

    @property
    def name(self) -> str:
        return "people"

    @property
    def revision(self) -> str:
        return "labels"

    def __call__(self, comparisons: Sequence[Comparison], progress: Progress | None = None) -> list[Verdict]:
        found = [settled(c) or self._verdict(c) for c in comparisons]
        missing = sum(v is None for v in found)
        if missing and self.annotators:
            by = "people" if self.annotators == 1 else f"{self.annotators} people"
            raise Pending(
                f"{missing} of {len(comparisons)} pairs wait to be labelled by {by}", where=str(self.path),
                fix="`evenhand label RUN` on this run's folder; then give the same command again",
            )  # fmt: skip
        return [v if v is not None else _UNREAD for v in found]

    def _verdict(self, comparison: Comparison) -> Verdict | None:
        a, b = answer_name(comparison.a.text), answer_name(comparison.b.text)
        own: dict[str, list[Order]] = {}
        for label in self._by_item.get(item_name(comparison.prompt, (comparison.a.text, comparison.b.text)), ()):
            own.setdefault(label.annotator, []).append(_order(label, a, b))
        if len(own) < max(self.annotators, 1):
            return None
        each = {name: _one(tuple(own[name])) for name in sorted(own)}
        if len(self.people) == 1:
            return next(iter(each.values()))
        whole = combined(each, "mean")
        votes = tuple((name, each[name].outcome if name in each else math.nan) for name in self.people)
        return Verdict(outcome=whole.outcome, orders=whole.orders, votes=votes)


_UNREAD = Verdict(
    outcome=0.5, orders=(Order(a_first=True, outcome=0.5, status=Status.INVALID, why="nobody has labelled this pair"),)
)


def _one(orders: tuple[Order, ...]) -> Verdict:
    return Verdict(outcome=sum(o.outcome for o in orders) / len(orders), orders=orders)


def _order(label: Label, a: str, b: str) -> Order:
    scores = label.by_answer()
    outcome = 0.5 if scores[a] == scores[b] else float(scores[a] > scores[b])
    return Order(a_first=label.answers[0] == a, outcome=outcome, status=Status.READ, label=label.label, raw=label.reason)
