"""Likelihood of demonstrations, token by token: what each token weighs. Unreduced [N, C]; `logp` in nats."""

from __future__ import annotations

from torch import Tensor


def even(logp: Tensor) -> Tensor:
    """`-logp`: every token as it is."""
    return -logp


def by_probability(logp: Tensor) -> Tensor:
    """`-sg(p) logp`, p the token's own probability: dynamic fine-tuning, DFT (arXiv:2508.05629).

    Its gradient is that of `-p`: a token that the policy finds unlikely hardly moves it, where SFT's gradient knows no such
    measure.

    >>> import torch
    >>> by_probability(torch.tensor([0.25, 1.0]).log())
    tensor([0.3466, -0.0000])
    """
    return -logp.detach().exp() * logp
