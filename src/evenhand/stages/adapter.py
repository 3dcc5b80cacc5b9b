"""Where a training stage meets adapters: given to the start, and written beside the merged model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

from evenhand.models import adapter_files
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapter_layers import lost
from evenhand.models.adapters import attach
from evenhand.models.backbone import Trunk
from evenhand.store import pointer

LOST = 0.2
"""Share of an adapter's change that may be lost in merging without a word."""
_log = logging.getLogger(__name__)
_Model = TypeVar("_Model", bound=Trunk)


def with_adapter(model: _Model, adapter: Adapter | None, seed: int) -> _Model:
    """The same network; where there is an adapter, that is all that learns."""
    if adapter is not None:
        attach(model, adapter, seed=seed)
    return model


def write_adapter(model: Trunk, start: Path, out: Path) -> None:
    """The adapter that `model` has learned on the artifact `start`, and a word where merging it lost much.

    A base from the hub is named as there, any other by the way from artifact to artifact.
    """
    folder = pointer.model_path(start)
    on_hub = adapter_files.base_name(folder)[1] is not None
    adapter_files.write(model, out / adapter_files.FOLDER, start=folder, name=None if on_hub else pointer.route(start))
    if (share := lost(model.hf)) > LOST:
        narrow = str(model.dtype).removeprefix("torch.")
        _log.warning("merged into %s weights, %.0f%% of the adapter's change is lost; adapter/ has it whole", narrow, 100 * share)
