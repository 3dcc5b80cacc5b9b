"""Keys and values while sampling: each prompt's once, shared by its rows, and what every row has added since.

P prompts were prefilled together, R rows continue them in lock step, so after `depth` steps every row owns exactly `depth` keys.
A query sees its whole prompt and its own row (both cut by a sliding window, where the layer has one):

    scores[r] = softcap(scaling * q[r] . [prompt_keys[owner[r]], row_keys[r, :depth]])
    out[r]    = softmax(scores[r]) . [prompt_values[owner[r]], row_values[r, :depth]]

The prompt half is one matrix product per prompt over all its rows ("slots"), not one matrix-vector product per row: at
16 prompts x 8 rows, 128 prompt tokens, this takes half the time of attention over keys copied to each row, and an eighth of
the prompt's memory. Grouped queries are folded into the query axis, so keys are never repeated. Where every prompt has one row
there is nothing to share, and the prompt's keys become the beginning of the row's (`base` of them): fewer, larger products.
Keys are kept with the tokens last [.., D, tokens], which a product with one query per row reads in order.
Shapes: H query heads, K key heads, g = H / K queries per key head, D head size, L longest prompt, S slots per prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from evenhand.models.attention_rule import AttentionRule
from evenhand.models.decode_attention import ACTIVE, capped, causal, softmax
from evenhand.models.decode_maps import Packed, Slots, fill_holes

ROOM = 64
"""Tokens by which rows' buffers grow when full: a copy every 64 steps costs little, and tight buffers are read faster."""


class SharedPrefixCache:
    """K and V of P prompts and of the rows that continue them, for every attention layer.

    `lengths` are the prompts' lengths; keys and values are kept in `dtype` (None: as they come). Fill it by running the model
    over packed prompts inside `prefilling(...)`, call `begin` once, then run the model on one token per row inside `stepping()`.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device, *, dtype: torch.dtype | None = None) -> None:
        self._dtype = dtype
        self.lengths = torch.tensor(lengths, device=device)
        self.longest, self.prompts = max(lengths), len(lengths)
        self.depth = 0
        self.base = 0  # keys in a row's buffer before its first own token
        self._uneven = min(lengths) < self.longest
        self._prompt_kv: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> keys [P * K, D, L], values [P * K, L, D]
        self._row_kv: dict[int, tuple[Tensor, Tensor]] = {}  # the same for R rows, with room to grow
        self._packed: Packed | None = None
        self._masks: dict[int | None, Tensor] = {}

    def begin(self, owner: Tensor) -> None:
        """Starts R rows; row r continues prompt `owner[r]`."""
        if torch.equal(owner, torch.arange(self.prompts, device=owner.device)):
            self.base = self.longest
            self._row_kv, self._prompt_kv = self._prompt_kv, {}  # room to grow is made layer by layer, at the first step
        self._assign(owner)

    def _assign(self, owner: Tensor) -> None:
        self.owner, self.rows = owner, owner.numel()
        self._starts = self.lengths[owner]
        if not self.base:
            self._slots = Slots(owner, self.prompts)

    @property
    def positions(self) -> Tensor:
        """Position ids [R] of the tokens to be fed next."""
        return self._starts + self.depth

    @property
    def held_bytes(self) -> int:
        """What keys and values take, room to grow included."""
        kept = [*self._prompt_kv.values(), *self._row_kv.values()]
        return sum(tensor.untyped_storage().nbytes() for pair in kept for tensor in pair)

    @contextmanager
    def prefilling(self, first: int, count: int) -> Iterator[None]:
        """Inside, the model is fed prompts `first .. first + count`, packed without padding into one flat sequence."""
        self._packed = Packed(first, self.lengths[first : first + count])
        token = ACTIVE.set(self)
        try:
            yield
        finally:
            ACTIVE.reset(token)
            self._packed = None

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Inside, the model is fed one token per row as one flat sequence [1, R]; afterwards `depth` is one more."""
        self._masks.clear()
        token = ACTIVE.set(self)
        try:
            yield
        finally:
            ACTIVE.reset(token)
        self.depth += 1

    def compact(self, alive: Tensor) -> Tensor:
        """Drops the rows where `alive` [R] is False, and prompts without rows. Returns `order`: new row i was row `order[i]`.

        Only the last rows move, into the holes: the cost is that of the rows dropped, not of the rows kept.
        """
        order = fill_holes(alive)
        self._row_kv = _kept(self._row_kv, order, self.rows, self.base + self.depth)
        owner = self.owner[order]
        if not self.base:
            owner = self._drop_prompts(owner)
        self._assign(owner)
        return order

    def _drop_prompts(self, owner: Tensor) -> Tensor:
        """Drops prompts that no row continues; returns the rows' owners under the new numbering."""
        used = torch.zeros(self.prompts, dtype=torch.bool, device=owner.device).index_fill_(0, owner, True)
        order = fill_holes(used)
        if order.numel() == self.prompts:
            return owner
        self._prompt_kv = _kept(self._prompt_kv, order, self.prompts, self.longest)
        new_index = torch.empty_like(self.lengths).index_copy_(0, order, torch.arange(order.numel(), device=order.device))
        self.lengths, self.prompts = self.lengths[order], order.numel()
        return new_index[owner]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """See `evenhand.models.decode_attention.Attends`."""
        if self._packed is not None:
            return self._attend_prompts(self._packed, layer, q[0], k[0], v[0], rule)
        return self._attend_rows(layer, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), rule)

    def _attend_prompts(self, packed: Packed, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        q, k, v = (packed.pad(x.to(q.dtype)) for x in (q, k, v))
        heads = k.shape[1]
        if layer not in self._prompt_kv:  # zeros, because 0 * NaN in an unused slot would poison a sum
            all_heads, longest = self.prompts * heads, self.longest
            keys = k.new_zeros(all_heads, k.shape[3], longest, dtype=self._dtype)
            values = v.new_zeros(all_heads, longest, v.shape[3], dtype=self._dtype)
            self._prompt_kv[layer] = keys, values
        keys, values = self._prompt_kv[layer]
        rows = slice(packed.first * heads, packed.last * heads)
        keys[rows, :, : packed.longest] = k.flatten(0, 1).mT
        values[rows, : packed.longest] = v.flatten(0, 1)
        return packed.flatten(causal(q, k, v, rule))[None]

    def _attend_rows(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        (_, rows, heads, size), kv_heads = q.shape, k.shape[2]
        q = _as(q.reshape(rows * kv_heads, heads // kv_heads, size) * rule.scale_for(size), self._dtype)
        keys, values = self._append(layer, k.flatten(0, 2), v.flatten(0, 2))
        past_prompt = rule.window is not None and self.depth + 1 >= rule.window  # the window lies within the row's own tokens
        if rule.window is not None and past_prompt:
            first = self.base + self.depth + 1 - rule.window
            keys, values = keys[:, :, first:], values[:, first:]
        if self.base or past_prompt:
            out = torch.bmm(self._weigh(torch.bmm(q, keys), kv_heads, rule, masked=not past_prompt), values)
        else:
            out = self._attend_shared(layer, q, keys, values, kv_heads, rule)
        return out.view(1, rows, heads, values.shape[-1])

    def _attend_shared(self, layer: int, q: Tensor, keys: Tensor, values: Tensor, kv_heads: int, rule: AttentionRule) -> Tensor:
        prompt_keys, prompt_values = self._prompt_kv[layer]
        shared = self._slots.scatter(torch.bmm(self._slots.gather(q, kv_heads), prompt_keys), kv_heads)
        weights = self._weigh(torch.cat((shared, torch.bmm(q, keys)), dim=-1), kv_heads, rule, masked=True)
        on_prompt = self._slots.gather(weights[:, :, : self.longest], kv_heads)
        out = torch.bmm(weights[:, :, self.longest :], values)
        return out.add_(self._slots.scatter(torch.bmm(on_prompt, prompt_values), kv_heads))

    def _weigh(self, scores: Tensor, kv_heads: int, rule: AttentionRule, *, masked: bool) -> Tensor:
        """Attention weights [R * K, g, t] from scores; `masked`: the first L of t are the prompt's slots."""
        if rule.softcap is not None:
            scores = capped(scores, rule.softcap)
        if masked and (hidden := self._prompt_mask(rule.window)) is not None:
            scores.view(self.rows, kv_heads, *scores.shape[1:])[..., : self.longest].masked_fill_(hidden, -torch.inf)
        return softmax(scores)

    def _append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds k and v [R * K, D] to the rows' buffers; returns what the rows hold now."""
        end = self.base + self.depth
        keys, values = (
            self._row_kv[layer] if layer in self._row_kv else (_as(k, self._dtype)[:, :, None], _as(v, self._dtype)[:, None])
        )
        if end == values.shape[1] or self.depth == 0:
            self._row_kv[layer] = keys, values = _grown(keys, values, end, end + ROOM)
        keys.select(2, end).copy_(k)
        values.select(1, end).copy_(v)
        return keys.narrow(2, 0, end + 1), values.narrow(1, 0, end + 1)

    def _prompt_mask(self, window: int | None) -> Tensor | None:
        """[R, 1, 1, L] True on prompt slots that a row's query may not see; None when it sees all. Made once per step."""
        if window is not None and window > self.longest + self.depth:
            window = None
        if window is None and not self._uneven:
            return None
        if window not in self._masks:
            slot = torch.arange(self.longest, device=self._starts.device)
            hidden = slot >= self._starts[:, None]
            if window is not None:
                hidden |= slot <= self._starts[:, None] + self.depth - window
            self._masks[window] = hidden[:, None, None]
        return self._masks[window]


class SideBySide:
    """Several caches in one step: the model is fed the rows of the first, then those of the next, and each attends to its own."""

    def __init__(self, caches: Sequence[SharedPrefixCache]) -> None:
        self._caches, self.rows = caches, [cache.rows for cache in caches]

    @property
    def positions(self) -> Tensor:
        """Position ids of the tokens to be fed next."""
        return torch.cat([cache.positions for cache in self._caches])

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """See `SharedPrefixCache.stepping`."""
        with ExitStack() as stack:
            for cache in self._caches:
                stack.enter_context(cache.stepping())
            token = ACTIVE.set(self)
            try:
                yield
            finally:
                ACTIVE.reset(token)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """See `evenhand.models.decode_attention.Attends`."""
        parts = zip(self._caches, *(x.split(self.rows, dim=2) for x in (q, k, v)), strict=True)
        return torch.cat([cache.attend(layer, *its, rule) for cache, *its in parts], dim=1)


def _as(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    return x if dtype is None else x.to(dtype)


def _grown(keys: Tensor, values: Tensor, held: int, capacity: int) -> tuple[Tensor, Tensor]:
    """Buffers like keys [N, D, t] and values [N, t, D] with room for `capacity` tokens; the first `held` are copied."""
    more_keys = keys.new_empty(*keys.shape[:2], capacity)
    more_values = values.new_empty(values.shape[0], capacity, values.shape[2])
    more_keys[:, :, :held], more_values[:, :held] = keys[:, :, :held], values[:, :held]
    return more_keys, more_values


def _kept(kv: dict[int, tuple[Tensor, Tensor]], order: Tensor, count: int, held: int) -> dict[int, tuple[Tensor, Tensor]]:
    """Of `count` entries [count * K, ..] the `order` ones, for their first `held` tokens; moved in place, then cut to size."""
    left = order.numel()
    moved = (order != torch.arange(left, device=order.device)).nonzero().squeeze(1)
    source = order[moved]
    result = {}
    for layer, (keys, values) in kv.items():
        heads = keys.shape[0] // count
        k, v = keys.unflatten(0, (count, heads)), values.unflatten(0, (count, heads))
        k[moved, :, :, :held], v[moved, :, :held] = k[source, :, :, :held], v[source, :, :held]
        result[layer] = keys[: left * heads], values[: left * heads]
    return result
