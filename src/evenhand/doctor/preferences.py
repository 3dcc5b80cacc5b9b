"""Checks of comparisons: answers that do not differ, lean to length, contradict each other, or are labelled one way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from evenhand.data.convert import pairs_of
from evenhand.doctor.context import CheckContext
from evenhand.doctor.examine import from_error
from evenhand.doctor.registry import Finding, Severity, check, fail, graded, info, share, shortened, too_many, warn
from evenhand.methods import BINARY
from evenhand.stages.labels import problems
from evenhand.types import Group


@check(
    "D3",
    "the two answers of a pair differ",
    why="a pair of equal answers has no gradient and raises the floor of the loss; cutting makes long answers equal",
    fix="`clean: {identical: drop}` in the source; raise `lengths.completion` if the cut makes them equal",
)
def identical(patient: CheckContext) -> Iterator[Finding]:
    for split, pairs in comparisons(patient).items():
        rows = [p for p in pairs if p.completions[0].text.strip() == p.completions[1].text.strip()]
        words = f"pairs of {split} have two equal answers"
        yield from too_many(len(rows), len(pairs), words, *_shown(rows), warn_above=0.0, fail_above=0.2)
        if (done := patient.tokenised.get(split)) is None:
            continue
        equal = [t for t in done.groups if len(t.completions) > 1 and len({c.ids for c in t.completions}) == 1]
        by_cutting = [t for t in equal if len({c.text.strip() for c in t.group.completions}) > 1]
        words = f"rows of {split} are equal once cut to {patient.experiment.lengths.completion} tokens"
        yield from too_many(len(by_cutting), len(done.groups), words, *by_cutting[:1], warn_above=0.0, fail_above=0.2)


@check(
    "D5",
    "the better answers are not simply the longer ones",
    why="what is learned may be length alone, and a judge that likes length will agree",
    fix="compare at equal length in the report, or balance the pairs",
)
def length_bias(patient: CheckContext) -> Iterator[Finding]:
    for split, pairs in comparisons(patient).items():
        lengths = [(len(p.completions[0].text), len(p.completions[1].text)) for p in pairs]
        longer = sum(a > b for a, b in lengths) + sum(a == b for a, b in lengths) / 2
        gap = sum(a - b for a, b in lengths) / len(lengths)
        seen = (
            f"{split}: `pick the longer` is right in {longer / len(pairs):.1%}; the better answer is {gap:+.0f} characters longer"
        )
        severity = Severity.WARN if longer > 0.65 * len(pairs) and len(pairs) >= 20 else Severity.INFO
        yield Finding(severity=severity, seen=seen)


@check(
    "D7",
    "binary labels are of both kinds, and balanced by their weights",
    why="with one label there is nothing to learn; with few of one kind the other decides alone",
    fix="set `weight_desirable` and `weight_undesirable` so that weight x count are alike, or add rows of the rarer label",
)
def binary_balance(patient: CheckContext) -> Iterator[Finding]:
    for name, arm in patient.arms.items():
        if patient.methods[name].data != BINARY or not (groups := patient.splits.get(patient.split_of(arm))):
            continue
        good = sum(s > 0 for g in groups for s in g.scores) if _single(groups) else len(groups)
        bad = sum(s <= 0 for g in groups for s in g.scores) if _single(groups) else len(groups)
        if not good or not bad:
            yield fail(f"{name}: all {good + bad} labels are {'desirable' if good else 'undesirable'}")
            continue
        ratio = good * _weight(arm.parameters, "desirable") / (bad * _weight(arm.parameters, "undesirable"))
        if not 1 / 3 <= ratio <= 3:
            yield warn(f"{name}: {good} desirable and {bad} undesirable answers weigh {ratio:.2g} to 1")
        if arm.train.prompts_per_step == 1:
            yield warn(f"{name}: one row per step leaves no other prompt to measure the reference point with")


@check(
    "D8",
    "one prompt's preferences agree",
    why="pairs preferred both ways pull against each other; many of them mean that labels are swapped somewhere",
    fix="keep the answer most annotators preferred, or give graded scores",
)
def contradictions(patient: CheckContext) -> Iterator[Finding]:
    for split, pairs in comparisons(patient).items():
        seen = Counter((p.prompt.id, p.completions[0].text, p.completions[1].text) for p in pairs)
        rows = [p for p in pairs if seen[p.prompt.id, p.completions[1].text, p.completions[0].text]]
        rows = [p for p in rows if p.completions[0].text != p.completions[1].text]
        words = f"pairs of {split} are preferred both ways"
        yield from too_many(len(rows), len(pairs), words, *_shown(rows), warn_above=0.01, fail_above=0.2)


@check(
    "D19",
    "scores tell answers apart",
    why="rows whose answers all have one score, or none, are left out of training by every method that compares",
    fix="check the column of scores, and `margin:`",
)
def unscored(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        several = [g for g in groups if len(g.completions) > 1]
        if not several or not split.endswith("preferences"):
            continue
        flat = [g for g in several if not pairs_of(g)]
        severity = graded(len(flat) / len(several), warn_above=0.1, fail_above=0.5)
        if severity:
            missing = sum(all(math.isnan(s) for s in g.scores) for g in flat)
            seen = f"{share(len(flat), len(several))} rows of {split} rank nothing ({missing} have no score at all)"
            yield Finding(severity=severity, seen=seen, examples=_shown(flat))
        elif flat:
            yield info(f"{share(len(flat), len(several))} rows of {split} are ties")


@check(
    "D22",
    "ratings and labelled steps are those that are learned",
    why="an attribute that no row rates keeps the score that it was drawn with; steps that are labelled otherwise than they are "
    "read later teach the scores of other places",
    fix="name the attributes as the rows do, each with its scale; give steps and model one `separator`",
)
def labels_fit(patient: CheckContext) -> Iterator[Finding]:
    for name, arm in patient.arms.items():
        done = patient.tokenised.get(patient.split_of(arm))
        for fault in problems(patient.methods[name], done.groups, patient.renderer) if done else ():
            yield from_error(fault.placed(f"{name}.{fault.where}"))


def comparisons(patient: CheckContext) -> dict[str, list[Group]]:
    """The pairs of every split with at least one, the better answer first; equal answers of unequal score included."""
    found = {n: [p for g in groups for p in pairs_of(g)] for n, groups in patient.answered.items()}
    return {n: p for n, p in found.items() if p}


def _single(groups: list[Group]) -> bool:
    return all(len(g.completions) == 1 for g in groups)


def _weight(parameters: Mapping[str, Any], kind: str) -> float:
    return float(parameters.get(f"weight_{kind}", 1.0))


def _shown(rows: list[Group]) -> tuple[str, ...]:
    return tuple(f"prompt {g.prompt.id}: " + " / ".join(shortened(c.text, 50) for c in g.completions[:2]) for g in rows[:3])
