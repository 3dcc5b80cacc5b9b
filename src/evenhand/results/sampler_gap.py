"""What the rollouts of arms were worth: how far who sampled them was from the policy, over all of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.results.record_parts import SamplerGap

NAMES = {
    "mean": "sampler/gap",
    "largest": "sampler/gap_max",
    "beyond_cap": "sampler/beyond",
    "effective_share": "sampler/effective",
}
"""Field -> metric; `train.rollouts.gap` writes them."""


def summed_up(rows: Sequence[Mapping[str, Any]]) -> SamplerGap | None:
    """Means over the steps, the largest of all; None where nothing was measured.

    >>> step = {"sampler/gap": 0.25, "sampler/gap_max": 0.5, "sampler/beyond": 0.0, "sampler/effective": 1.0}
    >>> summed_up([step, {**step, "sampler/gap": 0.75, "sampler/gap_max": 2.0}, {"loss": 1.0}])
    SamplerGap(mean=0.5, largest=2.0, beyond_cap=0.0, effective_share=1.0, steps=2)
    """
    found = {field: [row[name] for row in rows if name in row] for field, name in NAMES.items()}
    steps = len(found["mean"])
    if not steps:
        return None
    means = {field: sum(values) / steps for field, values in found.items()}
    return SamplerGap(**{**means, "largest": max(found["largest"])}, steps=steps)
