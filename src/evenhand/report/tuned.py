"""What a run's report says of how its arms were tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.report.formatting import fixed
from evenhand.report.style import ArmStyle
from evenhand.report.text import listed


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedRow:
    """One arm in the report of a comparison: its tuning budget, where its settings come from, and what to keep in mind."""

    name: str
    style: ArmStyle
    trials: str
    space: str
    chosen: str
    value: str
    as_given: str
    remarks: tuple[str, ...]


def tuned_rows(tuning: Mapping[str, Any] | None, styles: Mapping[str, ArmStyle]) -> list[TunedRow]:
    """A row per arm that was tuned."""
    return [_tuned(name, raw, styles[name]) for name, raw in (tuning or {}).get("arms", {}).items() if name in styles]


def _tuned(name: str, raw: Mapping[str, Any], style: ArmStyle) -> TunedRow:
    low, high = raw["ci95"]
    remarks = [f"{edge}: a wider space may hold a better one" for edge in raw["edges"]]
    remarks += [f"the best {raw['alike'] + 1} trials cannot be told apart"] if raw["alike"] else []
    remarks += [f"changed since: {listed(list(raw['changed']))}"] if raw["changed"] else []
    failed = f", {raw['failed']} failed" if raw["failed"] else ""
    return TunedRow(
        name=name, style=style, trials=f"{raw['trials']}{failed}",
        space="; ".join(f"{setting} {words}" for setting, words in raw["space"].items()),
        chosen=", ".join(f"{setting} {setting_text(value)}" for setting, value in raw["settings"].items()),
        value=f"{fixed(raw['value'], 3)} ({fixed(low, 3)} to {fixed(high, 3)})", as_given=fixed(raw["as_given"], 3),
        remarks=tuple(remarks),
    )  # fmt: skip


def setting_text(value: Any) -> str:
    """A setting as it is read.

    >>> setting_text(0.00012), setting_text(2), setting_text("cosine")
    ('0.00012', '2', 'cosine')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)
