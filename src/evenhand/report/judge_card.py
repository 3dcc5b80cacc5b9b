"""Who judged and how far to believe it: the judge's behaviour, its self-test, and what reward models pay for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.report.formatting import fixed, is_number, percent, signed
from evenhand.report.summaries import Measure


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The judge on pairs whose verdict is known. `passed` None: it could not be tested."""

    passed: bool | None
    measures: tuple[Measure, ...]
    note: str


def self_test(judge: Mapping[str, Any] | None) -> SelfTest | None:
    """None when the results hold no self-test."""
    raw = (judge or {}).get("self_test")
    if not isinstance(raw, Mapping):
        return None
    known = (
        ("Same answer twice", raw.get("identical"), fixed(raw.get("identical"), 2), "an answer against itself; 0.50 is fair"),
        (
            "Ruined answers lose",
            raw.get("planted"),
            percent(raw.get("planted"), 0),
            "shuffled, or to another prompt; 70% to pass",
        ),
        ("Same in both orders", raw.get("consistency"), percent(raw.get("consistency"), 0), "where one answer is ruined"),
        ("First shown preferred", raw.get("p_first"), percent(raw.get("p_first"), 0), "50% is fair"),
        ("Prompts", raw.get("n"), fixed(raw.get("n"), 0), f"taken from {raw.get('source', 'the answers')}"),
    )
    measures = tuple(Measure(label, shown, why) for label, value, shown, why in known if is_number(value))
    return SelfTest(raw.get("passed"), measures, str(raw.get("note") or ""))


def self_test_warnings(judge: Mapping[str, Any] | None) -> list[str]:
    """A judge that fails on pairs with a known verdict cannot be trusted with finer ones."""
    test = self_test(judge)
    return (
        ["The judge failed its self-test on pairs whose verdict is known."] if test is not None and test.passed is False else []
    )


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


def probe_tables(models: Mapping[str, Mapping[str, Any]]) -> dict[str, list[ProbeRow]]:
    """Reward model -> its probes; models without any are left out."""
    return {name: [_probe(k, v) for k, v in raw["probes"].items()] for name, raw in models.items() if raw.get("probes")}


def _probe(name: str, raw: Mapping[str, Any]) -> ProbeRow:
    low, high = raw["ci95"]
    interval = f"{signed(low)} to {signed(high)}"
    return ProbeRow(_PROBES.get(name, name), signed(raw["change"]), interval, percent(raw["raised"], 0), bool(raw["fooled"]))
