"""What the rollouts of an arm were worth, by the metrics of training: how far who sampled them was, and how old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.results.record_parts import SamplerGap, StalenessSummary

Steps = Sequence[Mapping[str, Any]]
GAP = {"mean": "gap", "largest": "gap_max", "beyond_cap": "beyond", "effective_share": "effective"}
"""Field -> metric below `sampler/`; `train.rollouts.gap` writes them."""
STALE = {"age": "staleness", **{name: f"staleness/{name}" for name in ("importance", "effective", "clipped", "kl")}}


def sampler_gap(rows: Steps) -> SamplerGap | None:
    """Means over the steps, the largest of all; None where nothing was measured.

    >>> step = {"sampler/gap": 0.25, "sampler/gap_max": 0.5, "sampler/beyond": 0.0, "sampler/effective": 1.0}
    >>> sampler_gap([step, {**step, "sampler/gap": 0.75, "sampler/gap_max": 2.0}, {"loss": 1.0}])
    SamplerGap(mean=0.5, largest=2.0, beyond_cap=0.0, effective_share=1.0, steps=2)
    """
    found = _known(rows, {field: f"sampler/{name}" for field, name in GAP.items()})
    if not found:
        return None
    return SamplerGap(**{**_means(found), "largest": max(found["largest"])}, steps=len(found["mean"]))


def staleness(rows: Steps, *, steps: int, proximal: str) -> StalenessSummary:
    """Means over all steps of all seeds; a figure that no step has is None.

    >>> found = staleness([{"step": 1, "staleness": 0.0}, {"step": 2, "staleness": 1.0}], steps=1, proximal="last")
    >>> found.age, found.kl
    (0.5, None)
    """
    return StalenessSummary(steps=steps, proximal=proximal, **_means(_known(rows, STALE)))


def _known(rows: Steps, metrics: Mapping[str, str]) -> dict[str, list[float]]:
    """By field the values of its metric at the steps that have it; fields without any are left out."""
    found = {field: [row[name] for row in rows if row.get(name) is not None] for field, name in metrics.items()}
    return {field: values for field, values in found.items() if values}


def _means(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {field: sum(values) / len(values) for field, values in found.items()}
