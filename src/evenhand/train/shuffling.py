"""The order of data: a keyed permutation per epoch, so that step i's rows depend on (seed, i) alone."""

from __future__ import annotations

from functools import lru_cache

from evenhand.seeding import rng


@lru_cache(maxsize=8)
def permutation(seed: int, name: str, epoch: int, size: int) -> tuple[int, ...]:
    """A permutation of range(size) keyed by (seed, name, epoch)."""
    return tuple(rng(seed, name, epoch).permutation(size).tolist())


def window(seed: int, name: str, size: int, start: int, count: int) -> list[int]:
    """`count` indices from position `start` of the endless stream of shuffled epochs.

    >>> sorted(window(0, "rows", 4, 0, 4)), window(0, "rows", 4, 2, 4)[:2] == window(0, "rows", 4, 0, 4)[2:]
    ([0, 1, 2, 3], True)
    """
    return [permutation(seed, name, (start + i) // size, size)[(start + i) % size] for i in range(count)]
