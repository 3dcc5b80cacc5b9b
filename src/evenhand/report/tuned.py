"""What a run's report says of how its arms were tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenhand.report.formatting import fixed
from evenhand.report.style import ArmStyle
from evenhand.report.text import listed
from evenhand.results.record_parts import TunedArmSummary, TuningSummary


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


def tuned_rows(tuning: TuningSummary | None, styles: Mapping[str, ArmStyle]) -> list[TunedRow]:
    """A row per arm that was tuned."""
    arms = tuning.arms if tuning is not None else {}
    return [_tuned(name, found, styles[name]) for name, found in arms.items() if name in styles]


def _tuned(name: str, found: TunedArmSummary, style: ArmStyle) -> TunedRow:
    low, high = found.ci95 or (None, None)
    remarks = [f"{edge}: a wider space may hold a better one" for edge in found.edges]
    remarks += [f"the best {found.alike + 1} trials cannot be told apart"] if found.alike else []
    remarks += [f"changed since: {listed(list(found.changed))}"] if found.changed else []
    failed = f", {found.failed} failed" if found.failed else ""
    return TunedRow(
        name=name, style=style, trials=f"{found.trials}{failed}",
        space="; ".join(f"{setting} {words}" for setting, words in found.space.items()),
        chosen=", ".join(f"{setting} {setting_text(value)}" for setting, value in found.settings.items()),
        value=f"{fixed(found.value, 3)} ({fixed(low, 3)} to {fixed(high, 3)})", as_given=fixed(found.as_given, 3),
        remarks=tuple(remarks),
    )  # fmt: skip


def setting_text(value: Any) -> str:
    """A setting as it is read.

    >>> setting_text(0.00012), setting_text(2), setting_text("cosine")
    ('0.00012', '2', 'cosine')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)
