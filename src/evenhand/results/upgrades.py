"""Older layouts of `results.json`, a step at a time to the present one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evenhand.results.paths import without_folders


def upgraded(data: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a results file of any older version in the present layout; a file without a version has version 0."""
    found = dict(data)
    for step in STEPS[found.get("version", 0) :]:
        found = step(found)
    return found


def _from_0(data: dict[str, Any]) -> dict[str, Any]:
    """Optional parts are absent rather than null, a length-controlled win rate is a table, no folder of the machine is named."""
    kept = {key: value for key, value in data.items() if value is not None}
    failed = kept.get("failed")
    if failed is not None:
        kept["failed"] = [{**entry, "error": without_folders(str(entry["error"]))} for entry in failed]
    if (judge := kept.get("judge") or {}).get("name"):
        kept["judge"] = {**judge, "name": without_folders(str(judge["name"]))}
    return {**kept, "version": 1, "arms": {name: _arm_from_0(arm or {}) for name, arm in data["arms"].items()}}


def _arm_from_0(arm: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in arm.items() if value is not None}
    controlled = kept.get("length_controlled")
    return kept | ({"length_controlled": {"win_rate": controlled}} if isinstance(controlled, int | float) else {})


STEPS: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (_from_0,)
"""The step at place v leads from version v to v + 1."""
