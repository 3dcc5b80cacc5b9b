"""How often a comparison was looked at: the designs that this run directory showed results of, kept in `results.json`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from evenhand.plan.plan import Plan
from evenhand.results.files import NAME, carried
from evenhand.results.record import Looks
from evenhand.stats.looks import Design, look

_log = logging.getLogger(__name__)


def looks(plan: Plan, out: Path, prompts: int) -> Looks | None:
    """Every design (seeds, prompts) seen here, in order, and what this one may err; see `stats.looks`. None before the first.

    The seeds are those the experiment asks for: a cell that failed and is made good is no new look, more seeds or prompts are.
    Without a verdict (`prompts` 0) nothing is seen.
    """
    chosen = plan.experiment.evaluation.planned
    planned = None if chosen is None else (chosen.seeds, chosen.prompts)
    designs = [*past(out), *([(len(plan.experiment.seeds), prompts)] if prompts else [])]
    if not designs:
        return None
    found = look(designs, planned)
    return carried(Looks, found, designs=tuple(dict.fromkeys(designs)), planned=planned)


def past(out: Path) -> list[Design]:
    """What an earlier `results.json` in this folder has shown."""
    path = out / NAME
    try:
        told = json.loads(path.read_text(encoding="utf-8")).get("looks") or {} if path.is_file() else {}
    except (ValueError, AttributeError):
        lost = "%s cannot be read and is written anew: how often this comparison was looked at before is not known"
        _log.warning(lost, path.name)
        return []
    return [(int(seeds), int(prompts)) for seeds, prompts in told.get("designs", ())]
