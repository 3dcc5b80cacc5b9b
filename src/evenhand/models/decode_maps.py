"""Index maps of the decoder: packed prompts to padded rows and back, rows to their prompts and back."""

from __future__ import annotations

import torch
from torch import Tensor


class Packed:
    """Between one flat sequence of packed prompts [T] and right-padded prompts [p, l]; `first .. last` of all prompts."""

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


class Slots:
    """Between R rows in any order and the block of S slots that each of P prompts has for its rows (S: the most rows of any)."""

    def __init__(self, owner: Tensor, prompts: int) -> None:
        self._prompts = prompts
        counts = torch.bincount(owner, minlength=prompts)
        self._slots = int(counts.max())
        self._row_of_slot = self._slot_of_row = None
        if torch.equal(owner, torch.arange(prompts, device=owner.device).repeat_interleave(self._slots)):
            return  # rows lie in slot order already
        by_prompt = torch.argsort(owner, stable=True)
        rank = torch.arange(owner.numel(), device=owner.device) - (counts.cumsum(0) - counts)[owner[by_prompt]]
        slot = owner[by_prompt] * self._slots + rank
        self._slot_of_row = torch.empty_like(slot).index_copy_(0, by_prompt, slot)
        self._row_of_slot = slot.new_zeros(prompts * self._slots).index_copy_(0, slot, by_prompt)  # spare slots repeat row 0

    def gather(self, x: Tensor, heads: int) -> Tensor:
        """[R * heads, g, X] -> [P * heads, S * g, X]: the rows of each prompt side by side."""
        _, group, size = x.shape
        if self._row_of_slot is not None:
            x = x.view(-1, heads, group, size)[self._row_of_slot]
        x = x.reshape(self._prompts, self._slots, heads, group, size).transpose(1, 2)
        return x.reshape(self._prompts * heads, self._slots * group, size)

    def scatter(self, x: Tensor, heads: int) -> Tensor:
        """[P * heads, S * g, X] -> [R * heads, g, X]: the inverse of `gather`."""
        _, across, size = x.shape
        x = x.view(self._prompts, heads, self._slots, across // self._slots, size).transpose(1, 2)
        if self._slot_of_row is not None:
            x = x.flatten(0, 1)[self._slot_of_row]
        return x.reshape(-1, across // self._slots, size)


def fill_holes(alive: Tensor) -> Tensor:
    """Which old index each new index takes, when the survivors beyond the new end move into the holes before it.

    >>> fill_holes(torch.tensor([True, False, True, False, True])).tolist()
    [0, 4, 2]
    """
    count = int(alive.sum())
    order = torch.arange(count, device=alive.device)
    holes = (~alive[:count]).nonzero().squeeze(1)
    order[holes] = alive[count:].nonzero().squeeze(1) + count
    return order
