"""What every folder with a model has in common, whoever writes it. Light to import."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

GATE_FOLDER, VALUE_FOLDER = "gate", "value_head"
"""Beside a model, in folders of their own: some loaders read every safetensors file that lies beside a config."""
NORMALISATION_FILE = "reward_normalisation.json"
"""The scale of a reward model's scores, beside it."""

EXPORT_RECORD = "evenhand.json"
"""Beside a model that was exported from a run: how it was made."""


def as_eos(stop_ids: Collection[int]) -> int | list[int] | None:
    """Stop tokens as a generation config spells them.

    >>> as_eos({3}), as_eos({7, 3}), as_eos(())
    (3, [3, 7], None)
    """
    stops = sorted(stop_ids)
    return stops[0] if len(stops) == 1 else stops or None


def readable_by_all(folder: Path) -> None:
    """Let everyone read a finished folder: temporary folders and safetensors files are made for their owner alone."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
