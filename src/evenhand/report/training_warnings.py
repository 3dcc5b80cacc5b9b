"""Warnings of the training of arms and shared stages, and what ended one early: rows for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evenhand.report.formatting import significant
from evenhand.report.style import ArmStyle
from evenhand.results.record import Results
from evenhand.results.record_parts import Fired, TrainingWarning


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule fired: an arm (with its style) or a shared stage (None), and "seed 0 from step 12 (0.55)" for each seed."""

    name: str
    style: ArmStyle | None
    seeds: str


@dataclass(frozen=True, slots=True)
class WarningRow:
    """One rule: what it measures against which limit, what that means and what to try, and everywhere it fired."""

    measures: str
    limit: str
    means: str
    normal: str
    fix: str
    places: tuple[Place, ...]


def warning_rows(results: Results, styles: Mapping[str, ArmStyle]) -> list[WarningRow]:
    """A row per rule, the arms before the shared stages."""
    entries = [(arm, styles.get(arm), w) for arm, found in results.arms.items() for w in found.warnings]
    entries += [(node, None, w) for node, found in results.stage_warnings.items() for w in found]
    rules = dict.fromkeys(w.rule for _, _, w in entries)
    return [_row([entry for entry in entries if entry[2].rule == rule]) for rule in rules]


def _row(entries: list[tuple[str, ArmStyle | None, TrainingWarning]]) -> WarningRow:
    words = entries[0][2]
    places = tuple(Place(name, style, _seeds(w.seeds)) for name, style, w in entries)
    return WarningRow(words.measures, significant(words.limit), words.means, words.normal, words.fix, places)


def _seeds(seeds: Mapping[str, Fired]) -> str:
    return ", ".join(f"seed {seed} from step {found.step} ({significant(found.value)})" for seed, found in seeds.items())


def stopped_early(results: Results, styles: Mapping[str, ArmStyle]) -> list[tuple[str, ArmStyle | None, str]]:
    """(arm, style, sentence) of every seed that a limit of the user's ended."""
    return [
        (arm, styles.get(arm), f"seed {seed}: stopped at step {end.step} of {end.of} because {end.sentence}")
        for arm, found in results.arms.items()
        for seed, end in found.stopped.items()
    ]


def warned_arms(results: Results) -> list[str]:
    """Arms whose training gave a warning."""
    return [arm for arm, found in results.arms.items() if found.warnings]
