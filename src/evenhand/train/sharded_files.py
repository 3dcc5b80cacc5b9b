"""Tensors that are spread over ranks, as files: each rank writes what it holds, and any number of ranks reads what it needs.

By `torch.distributed.checkpoint`, as safetensors files that carry their places in the whole: no rank gathers a tensor, nothing is
pickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch import Tensor


def write(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes this rank's part of the tensors; called by every rank, with the same folder. When it returns, all is on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    dcp.save(dict(tensors), storage_writer=dcp.HuggingFaceStorageWriter(path=str(folder), save_distributed=True))


def names(folder: Path) -> frozenset[str]:
    """Of the tensors in a folder."""
    return frozenset(dcp.HuggingFaceStorageReader(path=str(folder)).read_metadata().state_dict_metadata)


def read(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fills the tensors with those of the same names, in place; of one that is spread a rank reads its own part alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is")  # it need not be: a rank reads by itself
        dcp.load(dict(into), storage_reader=dcp.HuggingFaceStorageReader(path=str(folder)), no_dist=True)
