"""Decoding through transformers' own cache: works for every causal LM, pads prompts on the left, copies the prompt per row."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from evenhand.models.decode_maps import fill_holes
from evenhand.models.evaluation_mode import plainly_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PlainDecoder:
    """See `evenhand.models.decode.Decoder`."""

    def __init__(self, hf: PreTrainedModel) -> None:
        self.hf = hf

    def ready(self, matmul_dtype: torch.dtype | None = None, *, alone: bool = False) -> AbstractContextManager[None]:
        return plainly_in(self.hf, matmul_dtype)

    def open(self, prompts: Sequence[Sequence[int]], owner: Sequence[int]) -> PlainSession:
        return PlainSession(self.hf, prompts, owner)


class PlainSession:
    """See `evenhand.models.decode.Session`."""

    def __init__(self, hf: PreTrainedModel, prompts: Sequence[Sequence[int]], owner: Sequence[int]) -> None:
        from transformers import DynamicCache

        self._hf = hf
        self._takes_positions = "position_ids" in inspect.signature(hf.forward).parameters
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=hf.device)
        lengths = torch.tensor([len(p) for p in prompts], device=hf.device)
        slot = torch.arange(longest, device=hf.device)
        self._mask = (slot >= longest - lengths[:, None]).long()
        self._cache = DynamicCache(config=hf.config)
        positions = (slot - (longest - lengths[:, None])).clamp_(min=0)
        self.logits = self._forward(ids, positions)
        rows = torch.tensor(owner, device=hf.device)
        self._reorder(rows)
        self._mask, self._positions = self._mask[rows], lengths[rows]

    def step(self, tokens: Tensor) -> Tensor:
        self._mask = torch.cat((self._mask, self._mask.new_ones(tokens.numel(), 1)), dim=1)
        logits = self._forward(tokens[:, None], self._positions[:, None])
        self._positions = self._positions + 1
        return logits

    def compact(self, alive: Tensor) -> Tensor:
        order = fill_holes(alive)
        self._reorder(order)
        self._mask, self._positions = self._mask[order], self._positions[order]
        return order

    def _reorder(self, rows: Tensor) -> None:
        self._cache.reorder_cache(cast(torch.LongTensor, rows))  # the class of its annotation is that of a legacy constructor

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        where = {"position_ids": positions} if self._takes_positions else {}
        out = self._hf(input_ids=ids, attention_mask=self._mask, past_key_values=self._cache, use_cache=True, **where)
        return out.logits[:, -1]
