"""Memory that the process no longer uses and the C library keeps: given back now and then."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch import nn

EVERY = 20
"""Optimizer steps between two times. A step of rollouts leaves about 6 MB of holes that no later step fits exactly."""


def give_back() -> None:
    """Returns free pages to the system, from the middle of the heap too; nothing where the C library cannot.

    Batches of rollouts have other sizes in every step, and small things that stay (a metrics row, a layout) keep the heap from
    shrinking by itself: over hundreds of steps what is free and kept would be several times what is used.
    """
    if (trim := _trim()) is not None:
        trim(0)


@contextmanager
def given_back_after(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, that is done whenever one of these modules has run: the room of a gathered layer seldom fits the next."""
    hooks = [part.register_forward_hook(lambda *_: give_back()) for part in parts]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@cache
def _trim() -> Any:
    """`malloc_trim` of glibc; None on other systems."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
