"""Decoding with the cache that a model makes for itself: recurrent states, compressed keys, or none at all.

Nothing is padded, since a recurrent state would take padding in: prompts of one length run together, and every length has a cache
of its own. Whatever the model returns as its cache is fed back under the same name; one that returns none is given transformers'.
`RereadDecoder` uses no cache: a row is read again from its start at every step (correct for every causal model, and quadratic in
the length).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evenhand.models.decode_maps import fill_holes
from evenhand.models.evaluation_mode import plainly_in
from evenhand.models.hidden_states import without_cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CACHES = ("past_key_values", "cache_params", "state")
"""What models call their cache, in an output and as the argument that takes it back."""


class OwnCacheDecoder:
    """See `evenhand.models.decode.Decoder`."""

    caches = True

    def __init__(self, hf: PreTrainedModel) -> None:
        self.hf = hf

    def ready(self, matmul_dtype: torch.dtype | None = None, *, alone: bool = False) -> AbstractContextManager[None]:
        return plainly_in(self.hf, matmul_dtype)

    def open(self, prompts: Sequence[Sequence[int]], owner: Sequence[int]) -> OwnCacheSession:
        return OwnCacheSession(self.hf, prompts, owner, caches=self.caches)


class RereadDecoder(OwnCacheDecoder):
    """The same without any cache."""

    caches = False


@dataclass
class _Alike:
    """Rows of one length: which they are among all rows [r], what they have read [r, t], and the model's cache of it."""

    rows: Tensor
    ids: Tensor
    cache: dict[str, Any]

    def keep(self, order: Tensor, rows: Tensor) -> None:
        """Go on with the rows `order` of these, which are now `rows` among all."""
        self.rows, self.ids = rows, self.ids[order]
        self.cache = {name: _selected(cache, order) for name, cache in self.cache.items()}


class OwnCacheSession:
    """See `evenhand.models.decode.Session`."""

    def __init__(self, hf: PreTrainedModel, prompts: Sequence[Sequence[int]], owner: Sequence[int], *, caches: bool) -> None:
        self._hf, self._caches, self._takes = hf, caches, inspect.signature(hf.forward).parameters
        rows = torch.tensor(owner, device=hf.device)
        lengths = torch.tensor([len(p) for p in prompts], device=hf.device)
        self._parts: list[_Alike] = []
        found: dict[int, Tensor] = {}
        for length in sorted({len(p) for p in prompts}):
            members = [i for i, p in enumerate(prompts) if len(p) == length]
            part = _Alike(torch.empty(0), torch.tensor([list(prompts[i]) for i in members], device=hf.device), {})
            found |= dict(zip(members, self._read(part, part.ids), strict=True))
            place = torch.zeros(len(prompts), dtype=torch.long, device=hf.device)
            place[torch.tensor(members, device=hf.device)] = torch.arange(len(members), device=hf.device)
            its = (lengths[rows] == length).nonzero().squeeze(1)
            if its.numel():
                part.keep(place[rows[its]], its)
                self._parts.append(part)
        self.logits = torch.stack([found[i] for i in range(len(prompts))])

    def step(self, tokens: Tensor) -> Tensor:
        found = self.logits.new_empty(tokens.numel(), self.logits.shape[1])
        for part in self._parts:
            its = tokens[part.rows, None]
            part.ids = torch.cat([part.ids, its], dim=1)
            found[part.rows] = self._read(part, its if part.cache else part.ids).to(found.dtype)
        return found

    def compact(self, alive: Tensor) -> Tensor:
        order = fill_holes(alive)
        place = torch.empty_like(alive, dtype=torch.long).index_copy_(0, order, torch.arange(order.numel(), device=order.device))
        for part in self._parts:
            left = alive[part.rows].nonzero().squeeze(1)
            if left.numel() < part.rows.numel():
                part.keep(left, place[part.rows[left]])
            else:
                part.rows = place[part.rows]
        self._parts = [p for p in self._parts if p.rows.numel()]
        return order

    def _read(self, part: _Alike, ids: Tensor) -> Tensor:
        """Feed `ids` [r, t] after what the part's cache holds; the next token's logits [r, V]."""
        from transformers import DynamicCache

        if not self._caches:
            return self._hf(input_ids=ids, **without_cache(self._hf)).logits[:, -1]
        told = {"use_cache": True} if "use_cache" in self._takes else {}
        out = self._hf(input_ids=ids, **told, **part.cache)
        found = {name: cache for name in CACHES if (cache := getattr(out, name, None)) is not None}
        if not found and not part.cache and "past_key_values" in self._takes:
            part.cache = {"past_key_values": DynamicCache(config=self._hf.config)}
            return self._read(part, ids)
        part.cache = found or part.cache
        return out.logits[:, -1]


def _selected(cache: Any, order: Tensor) -> Any:
    """Rows `order` of a cache, whatever it is made of: rows come first in every tensor."""
    if isinstance(cache, Tensor):
        return cache.index_select(0, order)
    if isinstance(cache, dict):
        return {k: _selected(v, order) for k, v in cache.items()}
    if isinstance(cache, list | tuple):
        return type(cache)(_selected(v, order) for v in cache)
    if hasattr(cache, "batch_select_indices") and "batch_select_indices" in vars(type(cache)):
        cache.batch_select_indices(order)  # a class that defines its own selection keeps more than keys and values
    elif hasattr(cache, "reorder_cache"):
        cache.reorder_cache(order)
    elif hasattr(cache, "__dict__"):
        for name, value in vars(cache).items():
            if isinstance(value, Tensor | dict | list | tuple):
                setattr(cache, name, _selected(value, order))
    return cache
