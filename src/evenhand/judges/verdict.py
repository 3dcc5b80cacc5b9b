"""What a judge is asked and what it answers: two answers in, a verdict on the first of them out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from evenhand.types import Completion, Group, Prompt

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One prompt with the two answers to compare. `a` is the policy's answer, `b` the baseline's; a judge sees no names."""

    prompt: Prompt
    a: Completion
    b: Completion


class Status(StrEnum):
    """How one order's verdict came about."""

    READ = "read"
    """The judge's words were understood."""
    LOGPROBS = "logprobs"
    """The probabilities of the judge's possible words were read."""
    SCORED = "scored"
    """Both answers have a score; the higher one wins."""
    IDENTICAL = "identical"
    """Both answers are the same text: one half, without asking."""
    EMPTY = "empty"
    """An answer is empty: it loses, without asking."""
    INVALID = "invalid"
    """No usable verdict after every attempt: one half, flagged."""


ASKED = (Status.READ, Status.LOGPROBS, Status.SCORED, Status.INVALID)
"""The judge looked at the answers; the other two are settled by rule."""
SAID = (Status.READ, Status.LOGPROBS)
"""The judge preferred one place to the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The verdict in one order of presentation. `outcome` in [0, 1] is on `a`, wherever `a` stood.

    `label` is what the judge said ("A", "[[B>A]]"); `mass` the probability it gave to all labels together (log-probs only);
    `raw` its words; `attempts` how often it was asked; `cost` in dollars, None when the price is unknown; `why` a verdict
    could not be read, for `Status.INVALID`.
    """

    a_first: bool
    outcome: float
    status: Status
    label: str = ""
    mass: float = math.nan
    raw: str = ""
    attempts: int = 0
    cost: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`outcome` in [0, 1]: 1 = `a` preferred, 1/2 = tie; the mean over `orders`. `score_a`, `score_b` where the judge scores.

    `votes` has the outcomes by name of several judges, or of one asked repeatedly, NaN where one had no usable verdict.
    """

    outcome: float
    orders: tuple[Order, ...] = field(default=())
    score_a: float = math.nan
    score_b: float = math.nan
    votes: tuple[tuple[str, float], ...] = ()

    @property
    def invalid(self) -> bool:
        """True when some order has no usable verdict; its half counts 1/2."""
        return any(o.status is Status.INVALID for o in self.orders)

    @property
    def asked(self) -> bool:
        return any(o.status in ASKED for o in self.orders)

    def shown(self, a_first: bool) -> Order | None:
        """The verdict with `a` (or `b`) shown first; scores have no order and count for both; None where it was not asked."""
        for order in self.orders:
            if order.a_first is a_first:
                return order
            if order.status is Status.SCORED:
                return replace(order, a_first=a_first)
        return None

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        row = asdict(self)
        votes = {name: _finite(value) for name, value in row.pop("votes")}
        row |= {"votes": votes} if votes else {}
        row["orders"] = [{k: _finite(v) for k, v in o.items() if k != "why" or v} for o in row["orders"]]
        return {k: _finite(v) for k, v in row.items()}


class Judge(Protocol):
    """Compares pairs of answers: one `Verdict` per comparison, in order. `name` says who judged, `revision` by what rules."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    def __call__(self, comparisons: Sequence[Comparison], progress: Progress | None = None) -> list[Verdict]: ...


def settled(comparison: Comparison) -> Verdict | None:
    """The verdict that needs no judge: identical answers tie, an empty answer loses; None for the rest.

    >>> from evenhand.types import Completion, Prompt
    >>> ask = lambda a, b: settled(Comparison(prompt=Prompt(content="?"), a=Completion(content=a), b=Completion(content=b)))
    >>> ask("x", "x").outcome, ask("  ", "x").outcome, ask("x", ""). outcome, ask("x", "y")
    (0.5, 0.0, 1.0, None)
    """
    a, b = comparison.a.text, comparison.b.text
    if a == b:
        return _by_rule(0.5, Status.IDENTICAL)
    if not a.strip() or not b.strip():
        outcome = 0.5 if not (a.strip() or b.strip()) else float(bool(a.strip()))
        return _by_rule(outcome, Status.EMPTY)
    return None


def paired(answers: Sequence[Group], baseline: Sequence[Group]) -> list[Comparison]:
    """Comparisons of the first answers of two lists of groups over the same prompts, in order."""
    if [g.prompt.id for g in answers] != [g.prompt.id for g in baseline]:
        raise ValueError("the two sets of answers are to different prompts")
    return [Comparison(prompt=g.prompt, a=g.completions[0], b=h.completions[0]) for g, h in zip(answers, baseline, strict=True)]


def said_twice(verdicts: Iterable[Verdict]) -> list[tuple[Order, ...]]:
    """The orders of pairs that were asked, and understood, in both."""
    return [v.orders for v in verdicts if len(v.orders) == 2 and all(o.status in SAID for o in v.orders)]


def _by_rule(outcome: float, status: Status) -> Verdict:
    return Verdict(outcome=outcome, orders=tuple(Order(a_first=first, outcome=outcome, status=status) for first in (True, False)))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
