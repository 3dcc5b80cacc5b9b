"""Several judges as one, or one judge asked again and again: every vote is kept, so that agreement and noise can be told."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from evenhand.judges.llm import LLMJudge
from evenhand.judges.reward import RewardJudge
from evenhand.judges.verdict import Comparison, Judge, Order, Progress, Status, Verdict

Rule = Literal["majority", "mean"]


class Jury:
    """Asks every judge of `members` (by name) and settles each pair by a rule over the usable verdicts.

    "majority": every judge votes for one side or for a tie, and the side with more votes wins, 1/2 where both have as many.
    "mean": the mean of the outcomes. A judge without a usable verdict on a pair abstains; a pair on which all abstain is a half,
    marked invalid.
    """

    def __init__(self, members: Mapping[str, Judge], *, by: Rule = "majority") -> None:
        self.members, self.by = dict(members), by

    @property
    def name(self) -> str:
        return f"jury of {', '.join(self.members)} ({self.by})"

    @property
    def revision(self) -> str:
        rules = [self.by, *(f"{name} {member.name} {member.revision}" for name, member in self.members.items())]
        return hashlib.blake2b("\n".join(rules).encode(), digest_size=8).hexdigest()

    def __call__(self, comparisons: Sequence[Comparison], progress: Progress | None = None) -> list[Verdict]:
        verdicts = {name: member(comparisons, progress) for name, member in self.members.items()}
        return [combined(dict(zip(verdicts, row, strict=True)), self.by) for row in zip(*verdicts.values(), strict=True)]


class Repeated:
    """One language model asked `times` times about every pair; the outcome is the mean over the times.

    Every time is a question of its own to the model and to the cache, so that its temperature must be above 0.
    """

    def __init__(self, judge: LLMJudge, times: int) -> None:
        self.judge, self.times = judge, times

    @property
    def name(self) -> str:
        return self.judge.name

    @property
    def revision(self) -> str:
        return f"{self.judge.revision}-{self.times}-times"

    @property
    def chat(self) -> object:
        return self.judge.chat

    def __call__(self, comparisons: Sequence[Comparison], progress: Progress | None = None) -> list[Verdict]:
        every = [self.judge.asked_again(n)(comparisons, progress) for n in range(self.times)]
        return [_averaged(row) for row in zip(*every, strict=True)]


def _averaged(row: Sequence[Verdict]) -> Verdict:
    """The mean of one judge's verdicts on a pair, and of the grades that it could give."""
    found, usable = combined({str(n + 1): v for n, v in enumerate(row)}, "mean"), [v for v in row if not v.invalid]
    if not found.votes or not usable:
        return found
    mean = lambda values: float(np.mean(values))  # noqa: E731
    return replace(found, score_a=mean([v.score_a for v in usable]), score_b=mean([v.score_b for v in usable]))


def jurors(judge: Judge) -> Mapping[str, Judge]:
    """The judges that a verdict is made of: a jury's members, or the judge alone under the name ""."""
    return judge.members if isinstance(judge, Jury) else {"": judge}


def single(judge: Judge) -> Judge:
    """The judge itself where it is asked repeatedly."""
    return judge.judge if isinstance(judge, Repeated) else judge


def scores(judge: Judge) -> bool:
    """Whether a judge looks at one answer at a time."""
    judge = single(judge)
    return isinstance(judge, RewardJudge) or (isinstance(judge, LLMJudge) and judge.template.kind == "single")


def combined(verdicts: Mapping[str, Verdict], by: Rule) -> Verdict:
    """One verdict of several; see `Jury`.

    >>> made = lambda *outcomes: combined({str(n): Verdict(outcome=x) for n, x in enumerate(outcomes)}, "majority").outcome
    >>> made(1.0, 1.0, 0.0), made(0.75, 0.0), made(0.5, 0.5, 1.0)
    (1.0, 0.5, 1.0)
    """
    given = list(verdicts.values())
    if all(v.orders and not v.asked for v in given):
        return given[0]  # settled by rule
    usable = [v for v in given if not v.invalid]
    votes = tuple((name, math.nan if v.invalid else v.outcome) for name, v in verdicts.items())
    orders = _orders(given, usable, by)
    return Verdict(outcome=settle([v.outcome for v in usable], by), orders=orders, votes=votes)


def settle(outcomes: Sequence[float], by: Rule) -> float:
    """The outcome of several, by majority or mean; 1/2 where there is none."""
    if not outcomes:
        return 0.5
    if by == "mean":
        return float(np.mean(outcomes))
    votes = int(np.sign(np.round(np.array(outcomes) - 0.5, 12)).sum())
    return 0.5 + 0.5 * float(np.sign(votes))


def _orders(given: Sequence[Verdict], usable: Sequence[Verdict], by: Rule) -> tuple[Order, ...]:
    """What was settled with either answer first; scores, which have no order, count for both, and alone make one.

    The first of them has the attempts and the cost of all that was asked.
    """
    asked = [o for v in given for o in v.orders]
    costs = [o.cost for o in asked if o.attempts]
    cost = None if None in costs else math.fsum(c or 0.0 for c in costs)
    if not usable:
        why = next((o.why for o in asked if o.why), "")
        made = [Order(a_first=True, outcome=0.5, status=Status.INVALID, why=why, raw=_parts(o.raw for o in asked))]
    else:
        scored = all(o.status is Status.SCORED for v in usable for o in v.orders)
        shown = {
            first: [o for v in usable if (o := v.shown(first)) is not None] for first in ((True,) if scored else (True, False))
        }
        status = Status.SCORED if scored else Status.READ
        made = [
            Order(
                a_first=first, outcome=settle([o.outcome for o in own], by), status=status,
                label=" : ".join(o.label for o in own), raw=_parts(o.raw for o in own),
            )
            for first, own in shown.items() if own
        ]  # fmt: skip
    attempts = sum(o.attempts for o in asked)
    return tuple(replace(o, attempts=attempts, cost=cost) if i == 0 else o for i, o in enumerate(made))


def _parts(texts: Iterable[str]) -> str:
    return "\n---\n".join(texts)
