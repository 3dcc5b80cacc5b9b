"""How old the weights were that sampled what an arm learned from, and how far from it: from the metrics of its training."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from evenhand.results.record_parts import StalenessSummary

METRICS = {"age": "staleness", **{name: f"staleness/{name}" for name in ("importance", "effective", "clipped", "kl")}}
"""A field of the summary -> its metric."""
assert METRICS.keys() < {f.name for f in fields(StalenessSummary)}


def summary(rows: list[dict[str, Any]], *, steps: int, proximal: str) -> StalenessSummary:
    """Means over all steps of all seeds; a figure that no step has is None.

    >>> found = summary([{"step": 1, "staleness": 0.0}, {"step": 2, "staleness": 1.0}], steps=1, proximal="last")
    >>> found.age, found.kl
    (0.5, None)
    """
    columns = {name: [row[metric] for row in rows if row.get(metric) is not None] for name, metric in METRICS.items()}
    return StalenessSummary(
        steps=steps, proximal=proximal, **{name: sum(column) / len(column) for name, column in columns.items() if column}
    )
