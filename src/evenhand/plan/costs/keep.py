"""Where figures of this machine and predictions are kept: beside the store, or in the user's cache until there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evenhand.configfile.text_file import json_object
from evenhand.plan.costs.forecast import StageCost, StageForecast
from evenhand.plan.costs.machine import Machine, memory
from evenhand.store.fingerprint import user_cache
from evenhand.store.whole import write_json

MACHINE, PREDICTED = "machine.json", ".predicted.json"


def places(store: Path) -> Iterator[Path]:
    """Where to look, and to write: the first of them that is there."""
    if store.is_dir():
        yield store
    yield user_cache()


def machine(store: Path, threads: int) -> Machine | None:
    """What an earlier probe of this machine has left; None where there was none with so many threads."""
    for place in places(store):
        try:
            found = Machine(**json_object(place / MACHINE)[str(threads)])
        except (LookupError, TypeError):
            continue
        if found.memory_bytes == memory():
            return found
    return None


def keep_machine(store: Path, found: Machine) -> None:
    place = next(places(store))
    _write(place / MACHINE, {**json_object(place / MACHINE), str(found.threads): asdict(found)})


def prediction(store: Path, key: str) -> StageForecast | None:
    """What was predicted for an artifact; None where nothing was."""
    for place in places(store):
        found = json_object(place / f"{key}{PREDICTED}")
        try:
            cost = found["predicted"]
            return StageForecast(
                node=found["node"], predicted=StageCost(**cost) if cost else None, fits=found["fits"], fix=found["fix"]
            )
        except (LookupError, TypeError):
            continue
    return None


def keep_prediction(store: Path, key: str, found: StageForecast) -> None:
    _write(next(places(store)) / f"{key}{PREDICTED}", asdict(found))


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """Where nothing can be written (a read-only home, a full disk), the next plan measures anew, and the page has no forecast."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value)
