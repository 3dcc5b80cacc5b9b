"""Arms on rollouts of older weights: how old, how far, what bounds cut, and what sampling beside training would be worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.report.formatting import fixed, is_number, percent
from evenhand.report.plots.phases import mean_seconds
from evenhand.report.style import ArmStyle
from evenhand.results.record import Results
from evenhand.train.policies import GENERATOR

Ledgers = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class StalenessRow:
    """One arm. `saved` is the most of its time that overlap could save; `reread` the share of its operations that the log-probs
    cost which tell the distance."""

    arm: str
    style: ArmStyle
    steps: int
    clip: str
    age: str
    importance: str
    effective: str
    clipped: str
    kl: str
    reread: str
    saved: str


def staleness_rows(results: Results, styles: Mapping[str, ArmStyle], ledgers: Ledgers) -> list[StalenessRow]:
    """A row per arm that was trained on rollouts of older weights."""
    seconds = mean_seconds(ledgers)
    rows = []
    for arm, found in results.arms.items():
        if (s := found.staleness) is None or arm not in styles:
            continue
        rows.append(
            StalenessRow(
                arm=arm, style=styles[arm], steps=s.steps,
                clip="the policy that sampled" if s.proximal == GENERATOR else "the last policy",
                age=fixed(s.age, 1), importance=fixed(s.importance, 3),
                effective=percent(s.effective), clipped=percent(s.clipped),
                kl=fixed(s.kl, 4), reread=percent(_reread(ledgers.get(arm, {}))), saved=percent(overlap(seconds.get(arm, {}))),
            )
        )  # fmt: skip
    return rows


def overlap(seconds: Mapping[str, float]) -> float | None:
    """The share of an arm's time that sampling beside training would save at most: the shorter of the two over their sum.

    >>> overlap({"generate": 3.0, "score": 0.0, "train": 1.0})
    0.25
    """
    sampling = sum(seconds.get(phase, 0.0) for phase in ("generate", "score"))
    both = sampling + (training := seconds.get("train", 0.0))
    return min(sampling, training) / both if both > 0 else None


def _reread(seeds: Mapping[str, Mapping[str, Any]]) -> float | None:
    spent = [ledger.get("flops_by_phase") or {} for ledger in seeds.values()]
    whole = sum(value for phases in spent for value in phases.values() if is_number(value))
    return sum(phases.get("recompute", 0.0) for phases in spent) / whole if whole else None
