"""The parts of the results record about who judged, how far to believe it, and what it was shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Pair = tuple[float, float]
"""The ends of a 95% interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """The judge on pairs whose verdict is known. `passed` None: it could not be tested, and `note` says why."""

    passed: bool | None = None
    n: int | None = None
    identical: float | None = None
    planted: float | None = None
    consistency: float | None = None
    p_first: float | None = None
    invalid: float | None = None
    source: str | None = None
    revision: str | None = None
    note: str = ""
    failed: str = ""
    """What went wrong, where the judge did not pass."""
    members: Mapping[str, SelfTest] = field(default_factory=dict)
    """Of a jury: every judge by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementCoefficient:
    """Agreement beyond chance over `n` pairs, with its bootstrap interval; None where all verdicts are one and the same."""

    value: float | None = None
    ci95: Pair | None = None
    n: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JurorPair(AgreementCoefficient):
    """Cohen's kappa of judges `a` and `b`."""

    a: str
    b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Juror:
    """One judge of a jury: the mean outcome of its verdicts, and the share of pairs on which it had no usable one."""

    win_rate: float | None = None
    abstained: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JurySummary:
    """How far the judges of a jury agree: Krippendorff's alpha, Fleiss' kappa, Cohen's for every two; see `stats.agreement`."""

    members: Mapping[str, Juror] = field(default_factory=dict)
    alpha: AgreementCoefficient | None = None
    fleiss: AgreementCoefficient | None = None
    cohen: tuple[JurorPair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSummary:
    """Who judged, by what rules, and how it behaved over all arms but the baseline; see `judges.agreement.account`."""

    name: str | None = None
    kind: str | None = None
    template: str | None = None
    template_sha: str | None = None
    verdict: str | None = None
    temperature: float | None = None
    revision: str | None = None
    tie: float | None = None
    attempts: int | None = None
    consistency: float | None = None
    cost_usd: float | None = None
    empty: float | None = None
    identical: float | None = None
    invalid: float | None = None
    low_mass: float | None = None
    mass: float | None = None
    n: int | None = None
    one_order: float | None = None
    p_first: float | None = None
    ties: float | None = None
    win_rate_longer: float | None = None
    win_rate_not_longer: float | None = None
    right_or_wrong: bool = False
    """Whether every score is 1 or 0: an arm's mean score is then the share of prompts it solves."""
    by: str | None = None
    """How a jury settles a pair."""
    jury: JurySummary | None = None
    repeats: int | None = None
    """How often each pair was judged, where more than once."""
    repeat_sd: float | None = None
    """Standard deviation of one judging of a pair about the judge's own mean."""
    repeat_share: float | None = None
    """Share of the variance over prompts that is the judge's differing from itself."""
    self_test: SelfTest | None = None
    trained_on: tuple[str, ...] = ()
    """Arms whose training reward is this judge's score, or shares a part with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedOrder:
    """One order in which a judge was asked: whether the arm's answer stood first, what was read, and the judge's own words."""

    a_first: bool
    outcome: float
    status: str
    label: str = ""
    raw: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The answers of all arms to one held-out prompt under one seed, with what the judge made of each."""

    prompt_id: str | None = None
    prompt: str = ""
    seed: int | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    gold: Mapping[str, float | None] = field(default_factory=dict)
    outcome: Mapping[str, float | None] = field(default_factory=dict)
    orders: Mapping[str, tuple[JudgedOrder, ...]] = field(default_factory=dict)
    lengths: Mapping[str, int | None] = field(default_factory=dict)
    turns: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """By arm (role, text) of the turns of its answer, where an environment answered between them."""
