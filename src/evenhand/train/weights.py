"""Weights that go from one network to another by name."""

from __future__ import annotations

import torch
from torch import nn

from evenhand.models.sharding import assign, full


def spread(model: nn.Module) -> nn.Module:
    """The same network, its weights where its ranks hold them.

    A pass without a backward one leaves those of the outermost module gathered on every rank: what is written to them then, and
    what an optimizer does to them, is lost.
    """
    for part in model.modules():
        if callable(reshard := getattr(part, "reshard", None)):
            reshard()
    return model


def learning(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training moves, by name, for an optimizer to hold.

    Raises RuntimeError where ranks share the weights and some of these lie gathered: gradients reach the spread ones alone, and
    whoever ran the network before has to spread them again.
    """
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    whole = [name for name, p in found.items() if not hasattr(p, "full_tensor")] if hasattr(model, "reshard") else []
    if whole:
        raise RuntimeError(f"{len(whole)} weights lie gathered, where no gradient reaches an optimizer: first {whole[0]}")
    return found


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
    for name, parameter in spread(target).named_parameters():
        if name in known:
            value = full(known[name])
            assign(parameter, value if share == 1.0 else torch.lerp(full(parameter), value, share))
