"""The sentences of a comparison of runs: what differs, whether the figures may be set against each other, what was found."""

from __future__ import annotations

from evenhand.report.formatting import points, points_interval
from evenhand.report.text import Headline, listed
from evenhand.results.record import ArmVerdict
from evenhand.results.side_by_side.compared import RunsCompared
from evenhand.results.side_by_side.differences import RunDifference
from evenhand.results.side_by_side.settings import Touches


def headline(compared: RunsCompared) -> Headline:
    """What differs between the runs in one line, then what of it matters for reading them."""
    names = listed(compared.labels)
    apart = [row.key for row in compared.settings.apart if row.touches in (Touches.TRAINING, Touches.MEASURING)]
    if compared.settings.unrecorded:
        title = f"{names}: what differs is not recorded"
        first = f"{listed(compared.settings.unrecorded)} did not record the experiment, so its settings cannot be compared."
    elif apart:
        title = f"{names} differ in {len(apart)} setting{'s' * (len(apart) > 1)}"
        first = f"{'They are' if len(apart) > 1 else 'It is'} {listed(apart)}."
    else:
        title, first = f"{names} have the same settings", "Where their figures differ, seeds, versions or machines do."
    return Headline(title, (first, *(scale(compared, label) for label in compared.labels[1:]), *found(compared)))


def scale(compared: RunsCompared, label: str) -> str:
    """Whether a run's figures may be set against the first one's."""
    first, reasons = compared.labels[0], compared.yardstick.reasons[label]
    if reasons:
        return (
            f"{label} is not comparable with {first}: {'; '.join(reasons)}. Read its figures beside the others, not against them."
        )
    remarks = compared.yardstick.remarks(label, compared.labels)
    also = f", though with {listed(remarks)}" if remarks else ""
    return f"{label} is on {first}'s scale: one judge, the same held-out prompts, the same answers of the baseline{also}."


def found(compared: RunsCompared) -> list[str]:
    """The arms that two runs have and that can be told apart, all differences between these runs taken together."""
    first = compared.labels[0]
    told = [
        f"{d.arm} in {d.label} is {d.verdict} than in {first}: {points(d.difference)} points of win rate, "
        f"95% interval {points_interval(d.ci95_simultaneous)}{_together(d)}."
        for d in compared.differences
        if d.verdict in (ArmVerdict.BETTER, ArmVerdict.WORSE)
    ]
    if not told and any(d.ci95 is not None for d in compared.differences):
        return ["No arm that the runs share can be told apart between them."]
    return told


def _together(d: RunDifference) -> str:
    return f" for all {d.contrasts} differences together" if (d.contrasts or 0) > 1 else ""


def less(compared: RunsCompared, arm: str, label: str) -> tuple[str, str]:
    """The difference to the first run in points with the interval for all of them together, and what is to be said of it."""
    if label == compared.labels[0]:
        return "", ""
    d = compared.difference(arm, label)
    if d is None:
        return "", "" if arm == compared.runs[0].results.baseline else f"not in {compared.labels[0]}"
    if d.ci95 is None:
        return (points(d.difference) if d.difference is not None else ""), d.note
    return f"{points(d.difference)} ({points_interval(d.ci95_simultaneous)})", f"seeds {', '.join(map(str, d.seeds))}"
