"""Several contrasts at once: Holm's p, an interval that goes with it, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from evenhand.stats.intervals import EXCLUDED, SUREST, Interval
from evenhand.stats.tests import BETTER, INCONCLUSIVE, WORSE, holm_by_family, seeds_needed


class Compared(Protocol):
    """`Difference` and `LengthControlledDifference`."""

    @property
    def estimate(self) -> float: ...
    @property
    def per_seed(self) -> tuple[float, ...]: ...
    @property
    def p(self) -> float: ...
    def interval(self, level: float) -> Interval: ...


@dataclass(frozen=True, slots=True)
class Judged:
    """One contrast in its family of `contrasts`: Holm's p, `ci95_simultaneous`, and better | worse | inconclusive.

    The interval has level 1 - alpha / contrasts, so that all of a family hold the truth together with 95 % (Bonferroni). Where
    Holm's later steps reject although it still holds 0, it ends at 0: the sign is Holm's, at the family's level, the size is
    Bonferroni's.
    """

    p_holm: float
    ci95_simultaneous: Interval
    verdict: str
    contrasts: int


def judged(found: Sequence[Compared], families: Sequence[Hashable], *, alpha: float = 0.05) -> list[Judged]:
    """Every contrast corrected within its family; `alpha` is what the family may err in all (less where looks are spent).

    The verdict is not inconclusive only when Holm's p is below alpha and the sign agrees in at least k - 1 seeds (all of two).

    >>> from evenhand.stats.twoway import paired_difference
    >>> one = paired_difference([[1.0] * 9 + [0.0]] * 3, [[0.0] * 9 + [1.0]] * 3)
    >>> [(j.verdict, j.ci95_simultaneous == one.ci95) for j in judged([one], ["declared"])]
    [('better', True)]
    """
    adjusted, sizes = holm_by_family([c.p for c in found], families), Counter(families)
    return [
        Judged(p, simultaneous(c, sizes[f], p < alpha, alpha), _verdict(c, p < alpha), sizes[f])
        for c, p, f in zip(found, adjusted, families, strict=True)
    ]


def simultaneous(c: Compared, contrasts: int, resolved: bool, alpha: float = 0.05) -> Interval:
    """The interval of one of `contrasts`; `resolved`: whether Holm rejects a difference of 0. See `Judged`.

    A look that has next to nothing left to err (`stats.looks`) rejects nothing, and its interval holds 0.
    """
    low, high = c.interval(min(1 - alpha / contrasts, SUREST))
    if not resolved:
        return min(low, 0.0), max(high, 0.0)
    if low <= 0.0 <= high:
        return (EXCLUDED, high) if c.estimate > 0.0 else (low, -EXCLUDED)
    return low, high


def _verdict(c: Compared, resolved: bool) -> str:
    sign = 1.0 if c.estimate > 0.0 else -1.0
    agreeing = sum(sign * d > 0.0 for d in c.per_seed)
    if not resolved or agreeing < seeds_needed(len(c.per_seed)):
        return INCONCLUSIVE
    return BETTER if sign > 0.0 else WORSE
