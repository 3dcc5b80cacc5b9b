"""What two policies' whole distributions tell at every token: the vocabulary of both, a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from evenhand.core import kl
from evenhand.types import Head

ROW_BYTES = 32 << 20
"""Size of one chunk of log-probabilities in fp32; several are alive at once, and none is kept for the backward pass."""
Reader = Callable[[Tensor], Tensor]
"""States [m, H] -> log-probabilities [m, V]."""
Comparison = Callable[[Tensor, Tensor], Tensor]
"""Log-probabilities [m, V] of the policy and of the frozen one -> [m]."""


def entropy_share(log_p: Tensor, log_q: Tensor) -> Tensor:
    """The entropy of q over its largest possible value, log V; p is not looked at."""
    return -(log_q.exp() * log_q.clamp(min=torch.finfo(log_q.dtype).min)).sum(-1) / math.log(log_q.shape[-1])


OF_BOTH: Mapping[Head, Comparison] = {
    Head.KL: kl.exact, Head.REFERENCE_KL: lambda log_p, log_q: kl.exact(log_q, log_p), Head.REFERENCE_ENTROPY: entropy_share,
}  # fmt: skip


def rows(vocabulary: int) -> int:
    """How many rows of log-probabilities fit into one chunk."""
    return max(1, ROW_BYTES // (4 * vocabulary))


def by_chunk(own: Tensor, other: Tensor, read: Reader, read_other: Reader, compare: Comparison, *, vocabulary: int) -> Tensor:
    """`compare(policy, frozen)` at each of M states, [M]; differentiable in `own` and in what `read` reads it with.

    `own` [M, H] and `other` [M, H'] are the two networks' states at the same tokens.
    """
    size = rows(vocabulary)

    def chunk(a: Tensor, b: Tensor) -> Tensor:
        log_p = read(a)
        with torch.no_grad():
            log_q = read_other(b).to(log_p.dtype)
        return compare(log_p, log_q)

    parts = [checkpoint(chunk, a, b, use_reentrant=False) for a, b in zip(own.split(size), other.split(size), strict=True)]
    return torch.cat(parts) if parts else own.new_zeros(0)
