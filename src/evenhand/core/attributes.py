"""Scores of several attributes: how much of one of them is taken off the others (Wang et al. 2024, arXiv:2406.12845)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

PENALTIES: Sequence[float] = (
    0.0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, *(n / 20 for n in range(4, 20)),
)  # fmt: skip
"""What is tried, the least first; the published grid."""
LARGEST = 1.0
"""Where none of them is enough."""


def without(scores: Tensor, penalty: Tensor, attribute: int) -> Tensor:
    """`r_k - penalty_k r_attribute` of scores [N, K]; a penalty of 0 leaves a score as it is."""
    return scores - penalty * scores[:, attribute : attribute + 1]


def least_penalties(scores: Tensor, attribute: int, *, limit: float) -> list[float]:
    """For every column of scores [N, K] the least penalty after which its Spearman correlation with `attribute` is at most
    `limit`; the attribute itself keeps all of its score. A column without spread has nothing to take off.

    >>> import torch
    >>> rise = torch.arange(9.0, dtype=torch.float64)
    >>> least_penalties(torch.stack([rise, 0.4 * rise, -rise], 1), 0, limit=0.03)
    [0.0, 0.4, 0.0]
    """
    return [0.0 if k == attribute else _least(scores[:, k], scores[:, attribute], limit) for k in range(scores.shape[1])]


def _least(column: Tensor, other: Tensor, limit: float) -> float:
    return next((p for p in PENALTIES if _spearman(column - p * other, other) <= limit), LARGEST)


def _spearman(a: Tensor, b: Tensor) -> float:
    """0 where one of the two has no spread."""
    first, other = (rank - rank.mean() for rank in (_ranks(a), _ranks(b)))
    spread = float((first.square().sum() * other.square().sum()).sqrt())
    return float(first @ other) / spread if spread else 0.0


def _ranks(values: Tensor) -> Tensor:
    """The place of each in the order, from 1; equal ones (to nine decimals) share their mean place."""
    _, where, counts = values.double().round(decimals=9).unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2)[where]
