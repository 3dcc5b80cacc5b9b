"""Named tensors on the disk: one safetensors file, and beside it a folder of files for those that ranks hold in parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def write(tensors: Mapping[str, Tensor], place: Path) -> None:
    """Tensors that this process has whole, as `place` and .safetensors, on the disk when it returns."""
    from safetensors.torch import save_file

    path = place.with_suffix(".safetensors")
    save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, path)
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def names(place: Path) -> frozenset[str]:
    """Of all that was left at `place`."""
    from safetensors import safe_open

    found: frozenset[str] = frozenset()
    if (path := place.with_suffix(".safetensors")).exists():
        with safe_open(path, framework="pt") as file:
            found |= frozenset(file.keys())
    if place.is_dir():
        from evenhand.train import sharded_files

        found |= sharded_files.names(place)
    return found


def read(place: Path, into: Mapping[str, Tensor]) -> None:
    """Fills the tensors with those that were left at `place`, in place; whatever number of ranks wrote them, and reads them."""
    from safetensors.torch import load_file

    from evenhand.models.sharding import assign

    whole = load_file(path) if (path := place.with_suffix(".safetensors")).exists() else {}
    for name in into.keys() & whole.keys():
        assign(into[name], whole[name])
    if place.is_dir():
        from evenhand.train import sharded_files

        sharded_files.read(place, {name: tensor for name, tensor in into.items() if name not in whole})
