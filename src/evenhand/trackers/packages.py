"""What trackers of other tools need: the tool's package, and a name of a run that stays the same."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from evenhand.errors import UserError
from evenhand.trackers.protocol import TrackedRun

TOOLS = ("tensorboard", "wandb", "trackio", "mlflow")
"""Trackers that stand for a package of the same name."""


def missing_package(settings: Mapping[str, Any] | str | None) -> Iterator[UserError]:
    """The fault of a tracker whose package is not installed."""
    kind = settings.get("kind") if isinstance(settings, Mapping) else settings
    if kind in TOOLS and importlib.util.find_spec(kind) is None:
        fix = "pip install 'evenhand[track]', or use `tracker: lines`"
        yield UserError(f"the tracker '{kind}' needs the package {kind}, which is not installed", where="tracker", fix=fix)


def package(name: str) -> Any:
    """The tool's package. Raises: UserError where it is not installed."""
    for fault in missing_package(name):
        raise fault
    return importlib.import_module(name)


def run_id(run: TrackedRun) -> str:
    """The same for an arm and seed of a run directory whenever it is told, so that a tool goes on with the run it knows."""
    return hashlib.sha256(f"{run.out.resolve()}/{run.name}".encode()).hexdigest()[:16]
