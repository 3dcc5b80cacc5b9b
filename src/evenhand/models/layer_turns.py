"""A network whose weights are spread over processes, layer after layer: whoever reads all of it holds one of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn


def shards(model: nn.Module) -> list[Any]:
    """The parts of a network that processes share weight by weight, the outermost first; none in one process."""
    return [m for m in model.modules() if hasattr(m, "unshard")]


def decoder_layers(hf: nn.Module) -> dict[str, nn.Module]:
    """The blocks a transformers network is a stack of, by name: those it says must stay together, else its longest list."""
    named = set(getattr(hf, "_no_split_modules", None) or ())
    found = {name: m for name, m in hf.named_modules() if type(m).__name__.removeprefix("FSDP") in named}
    lists = ((name, m) for name, m in hf.named_modules() if isinstance(m, nn.ModuleList))
    return found or max(({f"{name}.{n}": m for n, m in one.named_children()} for name, one in lists), key=len, default={})


def in_turn(hf: nn.Module, names: Iterable[str]) -> Iterator[str]:
    """Names of weights or modules, one after the other: on its turn, every process has all of the layer that it is in.

    All processes go through the same names. In the order of a network no process ever holds two layers.
    """
    spread = set(shards(hf))
    parts = {f"{name}.": part for name, part in hf.named_modules() if part in spread}
    here: Any = None
    try:
        for name in names:
            wanted = next((part for prefix, part in parts.items() if f"{name}.".startswith(prefix)), None)
            if wanted is not here:
                if here is not None:
                    here.reshard()
                here = wanted if wanted is not None and any(hasattr(p, "full_tensor") for p in wanted.parameters()) else None
                if here is not None:
                    here.unshard()
            yield name
    finally:
        if here is not None:
            here.reshard()


def first(model: nn.Module) -> bool:
    """Whether this process is the one that writes what all of them hold in parts."""
    if not shards(model):
        return True
    import torch.distributed as dist

    return dist.get_rank() == 0
