"""Randomness is keyed, never global: the same (seed, stage, step, ...) gives the same numbers in any order of work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch

Key = str | int | float
T = TypeVar("T")


def keyed(*parts: Key) -> int:
    """A 63-bit integer determined by `parts` alone (order matters; types are kept apart).

    >>> keyed(0, "sft", 3) == keyed(0, "sft", 3), keyed(0, "sft", 3) == keyed("0", "sft", 3)
    (True, False)
    """
    text = json.dumps(parts, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: Key) -> torch.Generator:
    """A CPU torch generator seeded by `keyed(*parts)`."""
    import torch

    return torch.Generator().manual_seed(keyed(*parts))


def rng(*parts: Key) -> np.random.Generator:
    """A NumPy generator seeded by `keyed(*parts)`."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(keyed(*parts)))


def pick(generator: np.random.Generator, options: Sequence[T]) -> T:
    """One of `options`, each as likely as the others."""
    return options[int(generator.integers(len(options)))]
