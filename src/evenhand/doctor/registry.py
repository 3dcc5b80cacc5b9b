"""What a check is, what it finds, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from evenhand.doctor.context import CheckContext
from evenhand.types import TokenGroup


class Severity(StrEnum):
    """FAIL: the run would be wrong, and look healthy. WARN: it may be. INFO: what a careful person looks at anyway."""

    FAIL = "FAIL"
    WARN = "WARN"
    INFO = "INFO"


SECTIONS = {
    "D": "data", "T": "tokenizer and template", "M": "model and adapters", "R": "reward and judge", "G": "generation",
    "B": "budget and system",
}  # fmt: skip
"""What the first letter of an id stands for."""
SHOWN = 3
"""Examples per finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing seen. `examples` are lines of text, or tokenised groups to be shown with their colours.

    `why` and `fix` take the place of the check's own where this finding needs other words.
    """

    severity: Severity
    seen: str
    examples: tuple[str | TokenGroup, ...] = ()
    why: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`look` yields what it finds about a patient, nothing when all is well. `quick`: it takes no model, only moments."""

    id: str
    title: str
    why: str
    fix: str
    quick: bool
    look: Callable[[CheckContext], Iterable[Finding]]

    @property
    def section(self) -> str:
        return SECTIONS[self.id[0]]


CHECKS: dict[str, Check] = {}


def check(
    id: str, title: str, *, why: str, fix: str, quick: bool = True
) -> Callable[[Callable[[CheckContext], Iterator[Finding]]], Callable[[CheckContext], Iterator[Finding]]]:
    """Registers a function as the check `id`; two checks of one id are a mistake."""

    def register(look: Callable[[CheckContext], Iterator[Finding]]) -> Callable[[CheckContext], Iterator[Finding]]:
        if id in CHECKS:
            raise ValueError(f"two checks are called {id}")
        CHECKS[id] = Check(id=id, title=title, why=why, fix=fix, quick=quick, look=look)
        return look

    return register


def fail(seen: str, *examples: str | TokenGroup, why: str = "", fix: str = "") -> Finding:
    return Finding(severity=Severity.FAIL, seen=seen, examples=examples[:SHOWN], why=why, fix=fix)


def warn(seen: str, *examples: str | TokenGroup, why: str = "", fix: str = "") -> Finding:
    return Finding(severity=Severity.WARN, seen=seen, examples=examples[:SHOWN], why=why, fix=fix)


def info(seen: str, *examples: str | TokenGroup) -> Finding:
    return Finding(severity=Severity.INFO, seen=seen, examples=examples[:SHOWN])


def graded(share: float, *, warn_above: float, fail_above: float) -> Severity | None:
    """The severity of a share of faulty rows; None when it is not above either bound.

    >>> [graded(share, warn_above=0, fail_above=0.2) for share in (0.1, 0.3, 0.0)]
    [<Severity.WARN: 'WARN'>, <Severity.FAIL: 'FAIL'>, None]
    """
    if share > fail_above:
        return Severity.FAIL
    return Severity.WARN if share > warn_above else None


def too_many(
    part: int, whole: int, words: str, *examples: str | TokenGroup, warn_above: float, fail_above: float
) -> Iterator[Finding]:
    """The finding that `part` of `whole` are what they should not be, where that share is above a bound.

    >>> [f.seen for f in too_many(3, 12, "rows are empty", warn_above=0.1, fail_above=0.5)]
    ['3 of 12 (25%) rows are empty']
    """
    if severity := graded(part / max(whole, 1), warn_above=warn_above, fail_above=fail_above):
        yield Finding(severity=severity, seen=f"{share(part, whole)} {words}", examples=examples[:SHOWN])


def shortened(text: str, limit: int = 100) -> str:
    """A text on one line, for an example.

    >>> shortened("a\\nb" + "c" * 9, limit=8)
    "'a\\\\nbcc...'"
    """
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def share(part: int, whole: int) -> str:
    """A count with its share.

    >>> share(3, 12)
    '3 of 12 (25%)'
    """
    return (
        f"{part} of {whole} ({part / whole:.2g})"
        if whole and part / whole < 0.01
        else f"{part} of {whole} ({part / max(whole, 1):.0%})"
    )
