"""Why a winner may be none: it was judged by the score that it was trained on, or its answers have collapsed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evenhand.report.formatting import fixed, percent
from evenhand.report.summary import ArmRow, Summary
from evenhand.results.record import ArmResult
from evenhand.train.rules import RULES


@dataclass(frozen=True, slots=True)
class Doubt:
    """Words behind the headline's title, and a sentence below it."""

    title: str
    sentence: str


def doubts(summary: Summary, winner: ArmRow) -> list[Doubt]:
    """What a reader must hold against a claim that `winner` is better."""
    return [d for d in (_same_score(summary, winner), _collapsed(summary, winner)) if d is not None]


def _same_score(summary: Summary, winner: ArmRow) -> Doubt | None:
    if winner.name not in summary.trained_on_judge:
        return None
    sentence = (
        f"{winner.name} was trained on the score that judges it: this shows that training raised that score, not that "
        "anyone else would prefer the answers. Judge by something that no arm has seen."
    )
    return Doubt("" if summary.right_or_wrong else "by the score it was trained on", sentence)


def _collapsed(summary: Summary, winner: ArmRow) -> Doubt | None:
    """Far from the start, by the training monitor's limits, or with a fraction of the baseline's words; both: collapsed."""
    found = winner.result
    kl, per_token = found.kl or 0.0, (found.kl or 0.0) / (found.mean_length or math.inf)
    far = kl > RULES["kl"].limit and per_token > RULES["kl_per_token"].limit
    left = words_left(found, next((a.result for a in summary.arms if a.is_baseline), None))
    few = left is not None and left < RULES["distinct_below"].limit
    if not far and not few:
        return None
    seen = [f"is {fixed(kl, 0)} nats per answer ({fixed(per_token, 1)} per token) from its start"] if far else []
    seen += [f"has {percent(left, 0)} of the different words of {summary.reference}"] if few else []
    sentence = (
        f"{winner.name} {' and '.join(seen)}: its answers may have collapsed onto what the judge pays for. "
        "Read them before believing the win rate."
    )
    return Doubt("but its answers have collapsed" if far and few else "", sentence)


def words_left(found: ArmResult, base: ArmResult | None) -> float | None:
    """Distinct words as a share of the baseline's; what a longer text would lose anyhow (with the root of its length, by Heaps'
    law) is not held against it. None where either is not known."""
    if base is None or not base.distinct_1 or found.distinct_1 is None:
        return None
    longer = max(1.0, (found.mean_chars or 1.0) / (base.mean_chars or found.mean_chars or 1.0))
    return found.distinct_1 / base.distinct_1 * math.sqrt(longer)
