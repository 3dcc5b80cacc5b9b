"""Attention while sampling: each prompt's K and V once, shared by its rows, and what every row has added since.

P prompts were prefilled together, R rows continue them in lock step, so after `depth` steps every row owns exactly `depth` keys.
A query sees its whole prompt and its own row (both cut by a sliding window, where the layer has one):

    scores[r] = softcap(scaling * q[r] . [K_prompt[owner[r]], K_row[r, :depth]])
    out[r]    = softmax(scores[r]) . [V_prompt[owner[r]], V_row[r, :depth]]

The prompt half is one matrix product per prompt over all its rows ("slots"), not one matrix-vector product per row: at
16 prompts x 8 rows, 128 prompt tokens, this takes half the time of attention over keys copied to each row, and an eighth of
the prompt's memory. Grouped queries are folded into the query axis, so keys are never repeated. Where every prompt has one row
there is nothing to share, and the prompt's keys become the beginning of the row's (`base` of them): fewer, larger products.
Keys are kept with the tokens last [.., D, tokens], which a product with one query per row reads in order.
Shapes: H query heads, K key heads, g = H / K queries per key head, D head size, L longest prompt, S slots per prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ATTENTION = "evenhand_decode"
FIRST_CAPACITY = 64
"""New tokens a row's buffer holds at first; it doubles when full, so that rows which stop early never own long buffers."""

_ACTIVE: ContextVar[SharedPrefixCache] = ContextVar("the cache that attention reads and writes")
# Passed beside the model, not through its keyword arguments: several architectures do not hand those on to attention.


class SharedPrefixCache:
    """K and V of P prompts and of the rows that continue them, for every attention layer.

    `lengths` are the prompts' lengths. Fill it by running the model over packed prompts inside `prefilling(...)`, call `begin`
    once, then run the model on one token per row inside `stepping()`.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = torch.tensor(lengths, device=device)
        self.longest = max(lengths)
        self.uneven = min(lengths) < self.longest
        self.prompts = len(lengths)
        self.depth = 0
        self.base = 0  # keys in a row's buffer before its first own token
        self.owner = torch.empty(0, dtype=torch.long, device=device)
        self._prompt_kv: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> keys [P, K, D, L], values [P, K, L, D]
        self._row_kv: dict[int, tuple[Tensor, Tensor]] = {}  # the same for R rows, with room to grow
        self._packed: _Packed | None = None
        self._masks: dict[int | None, Tensor | None] = {}

    @property
    def rows(self) -> int:
        return self.owner.numel()

    @property
    def positions(self) -> Tensor:
        """Position ids [R] of the tokens to be fed next."""
        return self.lengths[self.owner] + self.depth

    def begin(self, owner: Tensor) -> None:
        """Starts R rows; row r continues prompt `owner[r]`."""
        self.owner = owner
        if torch.equal(owner, torch.arange(self.prompts, device=owner.device)):
            self.base = self.longest
            for layer in list(self._prompt_kv):  # one layer at a time: never two copies of all
                keys, values = self._prompt_kv.pop(layer)
                room = self.longest + FIRST_CAPACITY
                self._row_kv[layer] = _grown(keys, values, self.longest, room)
        else:
            self._assign_slots()

    @contextmanager
    def prefilling(self, first: int, count: int) -> Iterator[None]:
        """Inside, the model is fed prompts `first .. first + count`, packed without padding into one flat sequence."""
        self._packed = _Packed(first, self.lengths[first : first + count])
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)
            self._packed = None

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Inside, the model is fed one token per row as one flat sequence [1, R]; afterwards `depth` is one more."""
        self._masks.clear()
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)
        self.depth += 1

    def compact(self, alive: Tensor) -> Tensor:
        """Drops the rows where `alive` [R] is False, and prompts without rows. Returns `order`: new row i was row `order[i]`.

        Only the last rows move, into the holes: the cost is that of the rows dropped, not of the rows kept.
        """
        order = _fill_holes(alive)
        count = order.numel()
        moved = (order != torch.arange(count, device=order.device)).nonzero().squeeze(1)
        held = self.base + self.depth
        for keys, values in self._row_kv.values():
            keys[moved, :, :, :held] = keys[order[moved], :, :, :held]
            values[moved, :, :held] = values[order[moved], :, :held]
        self.owner = self.owner[order]
        if not self.base:
            self._drop_prompts()
            self._assign_slots()
        return order

    def _drop_prompts(self) -> None:
        used = torch.zeros(self.prompts, dtype=torch.bool, device=self.owner.device).index_fill_(0, self.owner, True)
        order = _fill_holes(used)
        count = order.numel()
        if count == self.prompts:
            return
        new_index = torch.empty_like(self.lengths).index_copy_(0, order, torch.arange(count, device=order.device))
        moved = (order != torch.arange(count, device=order.device)).nonzero().squeeze(1)
        self.owner, self.lengths = new_index[self.owner], self.lengths[order]
        for layer, (keys, values) in self._prompt_kv.items():
            keys[moved], values[moved] = keys[order[moved]], values[order[moved]]
            self._prompt_kv[layer] = keys[:count], values[:count]
        self.prompts = count

    def _assign_slots(self) -> None:
        """Gives each row a slot in its prompt's block of S; `_slot_row` is None when rows already lie in slot order."""
        counts = torch.bincount(self.owner, minlength=self.prompts)
        self._slots = int(counts.max())
        in_order = torch.arange(self.prompts, device=self.owner.device).repeat_interleave(self._slots)
        if torch.equal(in_order, self.owner):
            self._slot_row = self._row_slot = None
            return
        by_prompt = torch.argsort(self.owner, stable=True)
        starts = counts.cumsum(0) - counts
        rank = torch.arange(self.rows, device=self.owner.device) - starts[self.owner[by_prompt]]
        slot = self.owner[by_prompt] * self._slots + rank
        self._row_slot = torch.empty_like(slot).index_copy_(0, by_prompt, slot)
        self._slot_row = slot.new_zeros(self.prompts * self._slots).index_copy_(0, slot, by_prompt)  # spare slots repeat row 0

    # attention -----------------------------------------------------------------------------------------------------------

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: _Rule) -> Tensor:
        """q [1, H, T, D], k and v [1, K, T, D] of the tokens fed -> [1, T, H, D]; keeps k and v."""
        if self._packed is not None:
            return self._attend_prompts(self._packed, layer, q[0], k[0], v[0], rule)
        return self._attend_rows(layer, q[0], k[0], v[0], rule)

    def _attend_prompts(self, packed: _Packed, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: _Rule) -> Tensor:
        q, k, v = (packed.pad(x) for x in (q, k, v))
        if layer not in self._prompt_kv:
            heads = self.prompts, k.shape[1]
            # Zeros, because 0 * NaN in an unused slot would poison a sum.
            keys, values = k.new_zeros(*heads, k.shape[3], self.longest), v.new_zeros(*heads, self.longest, v.shape[3])
            self._prompt_kv[layer] = keys, values
        keys, values = self._prompt_kv[layer]
        keys[packed.first : packed.last, :, :, : packed.longest] = k.mT
        values[packed.first : packed.last, :, : packed.longest] = v
        return packed.flatten(_causal(q, k, v, rule))[None]

    def _attend_rows(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: _Rule) -> Tensor:
        rows, (heads, _, size), kv_heads = self.rows, q.shape, k.shape[0]
        q = q.transpose(0, 1).reshape(rows, kv_heads, heads // kv_heads, size) * rule.scaling
        left_prompt = rule.window is not None and self.depth + 1 >= rule.window  # the window lies within the row's own tokens
        first = self.base + self.depth + 1 - rule.window if left_prompt else 0
        keys, values = self._append(layer, k.transpose(0, 1), v.transpose(0, 1))
        keys, values = keys[..., first:], values[:, :, first:]
        scores, prompt_values = torch.matmul(q, keys), None
        if not (self.base or left_prompt):
            prompt_keys, prompt_values = self._prompt_kv[layer]
            scores = torch.cat((self._to_rows(torch.matmul(self._to_slots(q), prompt_keys)), scores), dim=-1)
        if rule.softcap is not None:
            scores = torch.tanh(scores / rule.softcap) * rule.softcap
        if not left_prompt and (hidden := self._prompt_mask(rule.window)) is not None:
            scores[..., : self.longest].masked_fill_(hidden, -torch.inf)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        if prompt_values is None:
            out = torch.matmul(weights, values)
        else:
            out = torch.matmul(weights[..., self.longest :], values)
            out += self._to_rows(torch.matmul(self._to_slots(weights[..., : self.longest]), prompt_values))
        return out.view(1, rows, heads, values.shape[-1])

    def _append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds k and v [R, K, D] to the rows' buffers; returns what the rows hold now."""
        end = self.base + self.depth
        if layer not in self._row_kv:
            self._row_kv[layer] = _grown(k[..., None], v[:, :, None], 0, FIRST_CAPACITY)
        keys, values = self._row_kv[layer]
        if end == values.shape[2]:
            room = self.base + 2 * self.depth
            self._row_kv[layer] = keys, values = _grown(keys[: self.rows], values[: self.rows], end, room)
        keys, values = keys[: self.rows, ..., : end + 1], values[: self.rows, :, : end + 1]
        keys[..., end], values[:, :, end] = k, v
        return keys, values

    def _to_slots(self, x: Tensor) -> Tensor:
        """[R, K, g, X] -> [P, K, S * g, X]: the rows of each prompt side by side."""
        _, heads, group, size = x.shape
        x = x if self._slot_row is None else x[self._slot_row]
        return x.reshape(self.prompts, self._slots, heads, group, size).transpose(1, 2).reshape(self.prompts, heads, -1, size)

    def _to_rows(self, x: Tensor) -> Tensor:
        """[P, K, S * g, X] -> [R, K, g, X]: the inverse of `_to_slots`."""
        _, heads, across, size = x.shape
        x = x.view(self.prompts, heads, self._slots, across // self._slots, size).transpose(1, 2)
        x = x.reshape(self.prompts * self._slots, heads, -1, size)
        return x if self._row_slot is None else x[self._row_slot]

    def _prompt_mask(self, window: int | None) -> Tensor | None:
        """[R, 1, 1, L] True on prompt slots that a row's query may not see; None when it sees all. Made once per step."""
        if window is not None and window > self.longest + self.depth:
            window = None
        if window is None and not self.uneven:
            return None
        if window not in self._masks:
            lengths = self.lengths[self.owner, None]
            slot = torch.arange(self.longest, device=lengths.device)
            hidden = slot >= lengths
            if window is not None:
                hidden |= slot <= lengths + self.depth - window
            self._masks[window] = hidden[:, None, None]
        return self._masks[window]


class _Packed:
    """Index maps between one flat sequence of packed prompts [T] and right-padded rows [p, l]."""

    def __init__(self, first: int, lengths: Tensor) -> None:
        self.first, self.last = first, first + lengths.numel()
        self.longest = int(lengths.max())
        slot = torch.arange(self.longest, device=lengths.device)
        real = slot < lengths[:, None]
        starts = lengths.cumsum(0) - lengths
        self._from_flat = (starts[:, None] + slot).where(real, 0)  # padding repeats token 0: it is never attended to
        self._to_flat = real.flatten().nonzero().squeeze(1)

    def pad(self, x: Tensor) -> Tensor:
        """[heads, T, D] -> [p, heads, l, D]"""
        return x[:, self._from_flat].transpose(0, 1)

    def flatten(self, x: Tensor) -> Tensor:
        """[p, heads, l, D] -> [T, heads, D]"""
        return x.transpose(1, 2).flatten(0, 1)[self._to_flat]


class _Rule:
    """What a layer asks of attention: scaling of the scores, a sliding window in tokens or None, a soft cap or None."""

    __slots__ = ("scaling", "softcap", "window")

    def __init__(self, scaling: float, window: int | None, softcap: float | None) -> None:
        self.scaling, self.window, self.softcap = scaling, window, softcap


def _causal(q: Tensor, k: Tensor, v: Tensor, rule: _Rule) -> Tensor:
    """Causal attention of right-padded prompts [p, heads, l, D]; padding comes after every real query, so needs no mask."""
    length, grouped = q.shape[2], q.shape[1] != k.shape[1]
    hidden = None
    if rule.softcap is not None or (rule.window is not None and rule.window < length):
        slot = torch.arange(length, device=q.device)
        distance = slot[:, None] - slot
        hidden = distance < 0
        if rule.window is not None:
            hidden |= distance >= rule.window
    if rule.softcap is None:
        return functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if hidden is None else ~hidden,
            is_causal=hidden is None,
            scale=rule.scaling,
            enable_gqa=grouped,
        )
    folded = q.reshape(q.shape[0], k.shape[1], -1, length, q.shape[3])
    scores = torch.matmul(folded * rule.scaling, k.unsqueeze(2).mT)
    scores = (torch.tanh(scores / rule.softcap) * rule.softcap).masked_fill_(hidden, -torch.inf)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, v.unsqueeze(2)).flatten(1, 2)


def _grown(keys: Tensor, values: Tensor, held: int, capacity: int) -> tuple[Tensor, Tensor]:
    """Buffers like keys [R, K, D, t] and values [R, K, t, D] with room for `capacity` tokens; the first `held` are copied."""
    more_keys = keys.new_empty(*keys.shape[:3], capacity)
    more_values = values.new_empty(*values.shape[:2], capacity, values.shape[3])
    more_keys[..., :held], more_values[:, :, :held] = keys[..., :held], values[:, :, :held]
    return more_keys, more_values


def _fill_holes(alive: Tensor) -> Tensor:
    """Which old index each new index takes, when the survivors beyond the new end move into the holes before it.

    >>> _fill_holes(torch.tensor([True, False, True, False, True])).tolist()
    [0, 4, 2]
    """
    count = int(alive.sum())
    order = torch.arange(count, device=alive.device)
    holes = (~alive[:count]).nonzero().squeeze(1)
    order[holes] = alive[count:].nonzero().squeeze(1) + count
    return order


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function registered with transformers under `ATTENTION`; it works on the cache that is prefilling or stepping."""
    if s_aux is not None:
        raise NotImplementedError("attention sinks")
    rule = _Rule(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    return _ACTIVE.get().attend(module.layer_idx, query, key, value, rule), None
