"""Results as tests write them down: the content of a results.json, of which every part but `arms` may be missing."""

from __future__ import annotations

from typing import Any

from evenhand.report import summary
from evenhand.report.summary import Summary
from evenhand.results.files import parsed, read
from evenhand.results.record_parts import CheckpointChoice, LengthGrid

__all__ = ["choices", "grid", "parsed", "read", "summarise"]


def summarise(data: dict[str, Any]) -> Summary:
    return summary.summarise(read(data))


def choices(data: dict[str, Any]) -> dict[str, dict[str, CheckpointChoice]]:
    return parsed(dict[str, dict[str, CheckpointChoice]], data)


def grid(data: dict[str, Any]) -> LengthGrid:
    return parsed(LengthGrid, data)
