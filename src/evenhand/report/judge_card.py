"""Who judged and how far to believe it: the judge's behaviour, its self-test, and what reward models pay for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evenhand.report.formatting import fixed, percent, signed
from evenhand.report.summaries import Measure
from evenhand.results.record_judge import AgreementCoefficient, JudgeSummary
from evenhand.results.record_parts import ProbeResult, RewardModelSummary


@dataclass(frozen=True, slots=True)
class SelfTestCard:
    """The judge on pairs whose verdict is known. `passed` None: it could not be tested."""

    passed: bool | None
    measures: tuple[Measure, ...]
    note: str


def self_test(judge: JudgeSummary | None) -> SelfTestCard | None:
    """None when the results hold no self-test."""
    if judge is None or judge.self_test is None:
        return None
    t = judge.self_test
    known = (
        ("Same answer twice", t.identical, fixed(t.identical, 2), "an answer against itself; 0.50 is fair"),
        ("Ruined answers lose", t.planted, percent(t.planted, 0), "shuffled, or to another prompt; 70% to pass"),
        ("Same in both orders", t.consistency, percent(t.consistency, 0), "where one answer is ruined"),
        ("First shown preferred", t.p_first, percent(t.p_first, 0), "50% is fair"),
        ("Prompts", t.n, fixed(t.n, 0), f"taken from {t.source or 'the answers'}"),
    )
    measures = tuple(Measure(label, shown, why) for label, value, shown, why in known if value is not None)
    return SelfTestCard(t.passed, measures, t.note)


def self_test_warnings(judge: JudgeSummary | None) -> list[str]:
    """A judge that fails on pairs with a known verdict cannot be trusted with finer ones."""
    failed = judge is not None and judge.self_test is not None and judge.self_test.passed is False
    return ["The judge failed its self-test on pairs whose verdict is known."] if failed else []


@dataclass(frozen=True, slots=True)
class JuryCard:
    """A jury: (judge, its win rate of the arms, pairs it gave no verdict on), and (who, coefficient, interval) of agreement."""

    members: tuple[tuple[str, str, str], ...]
    agreement: tuple[tuple[str, str, str], ...]


def jury(judge: JudgeSummary | None) -> JuryCard | None:
    """None where one judge judged alone."""
    if judge is None or judge.jury is None:
        return None
    found = judge.jury
    members = tuple((n, percent(m.win_rate), percent(m.abstained, 0)) for n, m in found.members.items())
    several = [("All: Krippendorff's alpha", found.alpha), ("All: Fleiss' kappa", found.fleiss)]
    pairs = [(f"{c.a} and {c.b}: Cohen's kappa", c) for c in found.cohen]
    return JuryCard(members, tuple(_agreed(label, c) for label, c in [*several, *pairs] if c is not None))


def _agreed(label: str, found: AgreementCoefficient) -> tuple[str, str, str]:
    shown = "not defined" if found.value is None else fixed(found.value, 2)
    low_high = "" if found.ci95 is None else f"{fixed(found.ci95[0], 2)} to {fixed(found.ci95[1], 2)}"
    return label, shown, low_high


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One change that makes answers no better, and what a reward model made of it."""

    name: str
    change: str
    ci95: str
    raised: str
    fooled: bool


_PROBES = {
    "thanks": "thanks appended", "repetition": "said twice", "emoji": "emoji appended", "shuffled": "words shuffled",
    "truncated": "second half cut", "off_topic": "unrelated sentence appended",
}  # fmt: skip


def probe_tables(models: Mapping[str, RewardModelSummary]) -> dict[str, list[ProbeRow]]:
    """Reward model -> its probes; models without any are left out."""
    return {name: [_probe(k, v) for k, v in found.probes.items()] for name, found in models.items() if found.probes}


def _probe(name: str, found: ProbeResult) -> ProbeRow:
    low, high = found.ci95
    interval = f"{signed(low)} to {signed(high)}"
    return ProbeRow(_PROBES.get(name, name), signed(found.change), interval, percent(found.raised, 0), found.fooled)
