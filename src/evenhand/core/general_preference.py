"""Preferences that may run in a circle: scores of one embedded answer over another, by a skew-symmetric operator."""

from __future__ import annotations

from torch import Tensor


def general_preference(first: Tensor, second: Tensor) -> Tensor:
    """`s(first over second) = <R v, w>`, of embeddings v, w [..., 2k]; R has k blocks ((0, -1), (1, 0)). Returns [...].

    It is antisymmetric, so that s(v, v) = 0, and any antisymmetric table of preferences has such embeddings (Zhang et al. 2024,
    arXiv:2410.02197). Where k = 1 and every second coordinate is 1 it is the difference of the first ones: Bradley-Terry.

    >>> import torch
    >>> rock, paper, scissors = torch.tensor([[1.0, 0.0], [-0.5, -0.75], [-0.5, 0.75]])
    >>> [float(general_preference(*pair)) > 0 for pair in ((paper, rock), (scissors, paper), (rock, scissors))]
    [True, True, True]
    """
    v, w = (x.unflatten(-1, (-1, 2)) for x in (first, second))
    return (v[..., 0] * w[..., 1] - v[..., 1] * w[..., 0]).sum(-1)
