"""How far to believe who scores answers: the judge by its behaviour and self-test, reward models by held-out pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from evenhand.report.formatting import amount, fixed, interval, is_number, percent, significant
from evenhand.results.record_judge import JudgeSummary
from evenhand.results.record_parts import RewardModelSummary

Measure = tuple[str, str, str]
"""A label, a number in words, and what it means."""


def known(*measures: tuple[str, float | None, str, str]) -> tuple[Measure, ...]:
    """The measures (label, value, value in words, reading) that have a value."""
    return tuple((label, shown, reading) for label, value, shown, reading in measures if value is not None)


_FACTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "name": ("Judge", str),
    "kind": ("Kind of judge", str),
    "invalid": ("Unusable verdicts", percent),
    "consistency": ("Same verdict in both orders", percent),
    "p_first": ("Prefers the first answer", percent),
    "ties": ("Ties", percent),
    "tie": ("Scores this close tie", significant),
    "n": ("Pairs judged", amount),
    "identical": ("Pairs with identical answers", percent),
    "empty": ("Pairs with an empty answer", percent),
    "mass": ("Probability on the verdict's words", percent),
    "low_mass": ("Verdicts with less than 90% on them", percent),
    "win_rate_longer": ("Win rate where the arm's answer is longer", percent),
    "win_rate_not_longer": ("Win rate where it is not", percent),
    "attempts": ("Questions asked", amount),
    "cost_usd": ("Cost in dollars", lambda value: fixed(value, 4)),
    "template": ("Judge template", str),
    "template_sha": ("Its hash", str),
    "verdict": ("Verdicts are read from", str),
    "by": ("A pair is settled by", lambda rule: f"the {rule} of the judges"),
    "repeats": ("Times each pair was judged", amount),
    "repeat_sd": ("Its own spread on one pair (sd)", fixed),
    "repeat_share": ("Share of the variance over prompts that is its own", percent),
}


def judge_facts(judge: JudgeSummary | None) -> list[tuple[str, str]]:
    """(label, value) of every plain value that the results give about the judge."""
    values = {f.name: getattr(judge, f.name) for f in fields(judge)} if judge is not None else {}
    plain = {k: v for k, v in values.items() if isinstance(v, str | int | float) and not isinstance(v, bool)}
    words = {key: _FACTS.get(key, (key.replace("_", " ").capitalize(), _plain)) for key in plain}
    return [(words[key][0], words[key][1](value)) for key, value in plain.items()]


def _plain(value: Any) -> str:
    return significant(value) if is_number(value) else str(value)


def judge_warnings(judge: JudgeSummary | None) -> list[str]:
    """Signs that the judge is unreliable: it contradicts itself when the order is swapped, gives no usable verdict, or fails on
    pairs with a known verdict."""
    if judge is None:
        return []
    found: list[str] = []
    if judge.consistency is not None and judge.consistency < 0.6:
        share = percent(judge.consistency, 0)
        found.append(f"The judge agrees with itself in only {share} of cases when the order of answers is swapped.")
    if judge.invalid is not None and judge.invalid > 0.05:
        found.append(f"{percent(judge.invalid, 0)} of the judge's verdicts could not be used.")
    if judge.self_test is not None and judge.self_test.passed is False:
        found.append("The judge failed its self-test on pairs whose verdict is known.")
    return found


def self_test_measures(judge: JudgeSummary | None) -> tuple[Measure, ...]:
    """The judge on pairs whose verdict is known."""
    if judge is None or judge.self_test is None:
        return ()
    t = judge.self_test
    return known(
        ("Same answer twice", t.identical, fixed(t.identical), "an answer against itself; 0.50 is fair"),
        ("Ruined answers lose", t.planted, percent(t.planted, 0), "shuffled, or to another prompt; 70% to pass"),
        ("Same in both orders", t.consistency, percent(t.consistency, 0), "where one answer is ruined"),
        ("First shown preferred", t.p_first, percent(t.p_first, 0), "50% is fair"),
        ("Prompts", t.n, fixed(t.n, 0), f"taken from {t.source or 'the answers'}"),
    )


PROBES = {
    "thanks": "thanks appended", "repetition": "said twice", "emoji": "emoji appended", "shuffled": "words shuffled",
    "truncated": "second half cut", "off_topic": "unrelated sentence appended",
}  # fmt: skip
"""Changes that make an answer no better, in words."""


def pair_measures(m: RewardModelSummary) -> tuple[Measure, ...]:
    """How good a reward model is on held-out pairs."""
    return known(
        ("Accuracy", m.accuracy, percent(m.accuracy), f"95% interval {interval(m.ci95)}; 50% is guessing"),
        ("Label ceiling", m.label_ceiling, percent(m.label_ceiling), "the best accuracy that these noisy labels allow"),
        ("Log-loss", m.log_loss, fixed(m.log_loss, 3), "0.693 is guessing; lower is better"),
        ("Mean margin", m.mean_margin, fixed(m.mean_margin), "score of chosen minus score of rejected"),
        ("Calibration error", m.ece, percent(m.ece), "gap between its stated and its actual certainty"),
        ("Score and length", m.length_correlation, fixed(m.length_correlation), "correlation; near 0 is good"),
        ("Pairs", m.n, amount(m.n), "held-out pairs that these numbers rest on"),
    )


def gauge(m: RewardModelSummary) -> dict[str, float | None] | None:
    """Places on the accuracy bar in per cent of its width; `start` is the accuracy at its left end.

    Accuracies below 40% are rare, so the bar starts there unless one needs the room.
    """
    if m.accuracy is None:
        return None
    low, high = m.ci95 or (None, None)
    start = 0.4 if min(m.accuracy, 1.0 if low is None else low) >= 0.4 else 0.0
    shares = {"mark": m.accuracy, "chance": 0.5, "low": low, "high": high, "ceiling": m.label_ceiling}
    places = {name: None if share is None else round(100 * (share - start) / (1 - start), 2) for name, share in shares.items()}
    return {"start": start, **places}


def faults(m: RewardModelSummary) -> list[str]:
    """The two faults that spoil every method trained on a reward model (thresholds as in the preflight checks)."""
    found = []
    if m.ci95 is not None and m.ci95[0] <= 0.5:
        found.append("Its interval includes 50%: it cannot be told from guessing, so rewards from it mean little.")
    leaning = m.length_correlation
    if leaning is not None and abs(leaning) > 0.3:
        side = "longer" if leaning > 0 else "shorter"
        found.append(f"It leans on length: {side} answers score higher (correlation {fixed(leaning)}, warning from 0.3).")
    return found
