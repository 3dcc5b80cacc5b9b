"""Weights that go from one network to another by name."""

from __future__ import annotations

import torch
from torch import nn

from evenhand.models.sharding import assign, full


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give `target` the parameters of `source` that both have by name."""
    mix_weights(source, target, 1.0)


@torch.no_grad()
def mix_weights(source: nn.Module, target: nn.Module, share: float) -> None:
    """`target <- share * source + (1 - share) * target`, for every parameter that both have by name.

    >>> one, other = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = one.weight.data.fill_(2.0), other.weight.data.fill_(-2.0)
    >>> mix_weights(one, other, 0.75)
    >>> other.weight.item()
    1.0
    """
    known = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        if name in known:
            value = full(known[name])
            assign(parameter, value if share == 1.0 else torch.lerp(full(parameter), value, share))
