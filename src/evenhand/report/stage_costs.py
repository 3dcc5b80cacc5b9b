"""What each stage was predicted to hold and to take, beside what it did: from the notes beside the run's store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.plan.costs import keep
from evenhand.report.formatting import MISSING, duration
from evenhand.store import spent

GIB = 2**30


class StageCostRow(NamedTuple):
    """A stage in words: the peak of its memory and its time, as predicted and as they were, and their ratio."""

    node: str
    memory: tuple[str, str, str]
    time: tuple[str, str, str]


def stage_costs(folder: Path, record: Mapping[str, Any]) -> tuple[StageCostRow, ...]:
    """A row for every stage of the run that something is known of; stages with a prediction have both."""
    store = folder / str(record.get("store", "store"))
    found = []
    for node in record.get("nodes", ()):
        took, said = spent.read(store, node["key"]), keep.prediction(store, node["key"])
        if took is None:
            continue
        cost = said.predicted if said is not None else None
        memory = compared(cost.peak_bytes if cost else None, took.peak_bytes, lambda b: f"{b / GIB:.2f} GiB")
        found.append(StageCostRow(str(node["name"]), memory, compared(cost.seconds if cost else None, took.seconds, duration)))
    return tuple(found)


def compared(said: float | None, was: float | None, shown: Any) -> tuple[str, str, str]:
    """Prediction, fact, and the first over the second.

    >>> compared(3.0, 2.0, str)
    ('3.0', '2.0', 'x 1.50')
    """
    ratio = f"x {said / was:.2f}" if said is not None and was else MISSING
    return MISSING if said is None else shown(said), MISSING if was is None else shown(was), ratio
