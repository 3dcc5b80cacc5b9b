"""Where a training stage meets adapters: given to the start, and written in place of a whole model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

from evenhand.data.template import Renderer
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapter_layers import lost
from evenhand.models.adapter_models import save_adapted
from evenhand.models.adapters import attach, pack
from evenhand.models.backbone import Trunk
from evenhand.models.policy import Policy
from evenhand.models.save import save
from evenhand.models.sharding import but_layers
from evenhand.models.spread_save import at_hand
from evenhand.store import pointer
from evenhand.train import heap

LOST = 0.2
"""Share of an adapter's change that may be lost in merging without a word."""
_log = logging.getLogger(__name__)
_Model = TypeVar("_Model", bound=Trunk)


def with_adapter(model: _Model, adapter: Adapter | None, seed: int) -> _Model:
    """The same network; where there is an adapter, that is all that learns."""
    if adapter is not None:
        attach(model, adapter, seed=seed)
        heap.give_back()  # wide weights, where they are in four bits now
    return model


def as_start(model: Policy, adapter: Adapter | None) -> Policy:
    """The start as the adapter sees it: with `quantize` in four bits."""
    return in_four_bits(model) if adapter is not None and adapter.quantize is not None else model


def in_four_bits(model: Policy) -> Policy:
    """The same network, its trunk held in four bits, and the memory of the wide weights given back."""
    pack(model.hf)
    heap.give_back()
    return model


def write_model(model: Trunk, renderer: Renderer, start: Path | None, out: Path) -> Path:
    """What `model` has learned from the artifact `start`, in transformers' or in peft's format; returns the folder.

    Of a network that ranks share all of them call this, and the first one's folder is the one that counts.

    With an adapter that is the adapter alone, and a word where merging it would lose much. A base from the hub is named as there,
    any other by the way from artifact to artifact.
    """
    if model.adapter is None or start is None:
        with at_hand(model):
            save(model, renderer.tokenizer, out / pointer.MODEL, stop_ids=renderer.stop_ids)
        return out / pointer.MODEL
    folder, base = out / pointer.ADAPTER, pointer.model_path(start)
    with but_layers(model):
        save_adapted(model, renderer.tokenizer, folder, start=base, artifact=start, stop_ids=renderer.stop_ids)
        share = lost(model.hf)
    if share > LOST:
        narrow = str(model.dtype).removeprefix("torch.")
        _log.warning("merged into %s weights, %.0f%% of the adapter's change is lost; adapter/ has it whole", narrow, 100 * share)
    return folder
