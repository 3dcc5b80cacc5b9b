"""What was said while arms and shared stages trained, and what ended one early: rows for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.report.formatting import significant
from evenhand.report.style import ArmStyle


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule fired: an arm (with its style) or a shared stage (None), and "seed 0 from step 12 (0.55)" for each seed."""

    name: str
    style: ArmStyle | None
    seeds: str


@dataclass(frozen=True, slots=True)
class Said:
    """One rule: what it measures against which limit, what that means and what to try, and everywhere it fired."""

    measures: str
    limit: str
    means: str
    normal: str
    fix: str
    places: tuple[Place, ...]


def said_while_training(results: Mapping[str, Any], styles: Mapping[str, ArmStyle]) -> list[Said]:
    """A row per rule, the arms before the shared stages."""
    entries = [(arm, styles.get(arm), w) for arm, raw in results["arms"].items() for w in raw.get("warnings") or ()]
    entries += [(node, None, w) for node, found in (results.get("stage_warnings") or {}).items() for w in found]
    rules = dict.fromkeys(w["rule"] for _, _, w in entries)
    return [_said([entry for entry in entries if entry[2]["rule"] == rule]) for rule in rules]


def _said(entries: list[tuple[str, ArmStyle | None, Mapping[str, Any]]]) -> Said:
    words = entries[0][2]
    places = tuple(Place(name, style, _seeds(w["seeds"])) for name, style, w in entries)
    return Said(words["measures"], significant(words["limit"]), words["means"], words["normal"], words["fix"], places)


def _seeds(seeds: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"seed {seed} from step {found['step']} ({significant(found['value'])})" for seed, found in seeds.items())


def stopped_early(results: Mapping[str, Any], styles: Mapping[str, ArmStyle]) -> list[tuple[str, ArmStyle | None, str]]:
    """(arm, style, sentence) of every seed that a limit of the user's ended."""
    return [
        (arm, styles.get(arm), f"seed {seed}: stopped at step {end['step']} of {end['of']} because {end['sentence']}")
        for arm, raw in results["arms"].items()
        for seed, end in (raw.get("stopped") or {}).items()
    ]


def arms_with_remarks(results: Mapping[str, Any]) -> list[str]:
    """Arms of which something was said."""
    return [arm for arm, raw in (results.get("arms") or {}).items() if raw.get("warnings")]
