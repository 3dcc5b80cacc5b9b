"""A network while it is only asked: evaluation mode, no gradients, one implementation of attention; afterwards as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def plainly(hf: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, no gradients, and transformers' own attention (eager: the one every model supports in full)."""
    with evaluating(hf), attention(hf, "eager"), torch.inference_mode():
        yield


@contextmanager
def plainly_in(hf: PreTrainedModel, dtype: torch.dtype | None) -> Iterator[None]:
    """The same with matrix products in `dtype` (None: the weights' own precision)."""
    with plainly(hf), torch.autocast(hf.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        yield


@contextmanager
def attention(hf: PreTrainedModel, name: str) -> Iterator[None]:
    """Attention implementation `name` inside, the previous one afterwards."""
    before = hf.config._attn_implementation
    hf.config._attn_implementation = name
    try:
        yield
    finally:
        hf.config._attn_implementation = before


@contextmanager
def evaluating(hf: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode (no dropout) inside; afterwards exactly the modules that were training train again."""
    training = [m for m in hf.modules() if m.training]
    if training:
        hf.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
