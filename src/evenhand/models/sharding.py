"""A network whose weights are spread over processes (FSDP2): how it is cut, and how it is made whole for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.models.adapters import networks
from evenhand.models.backbone import Trunk
from evenhand.models.layer_turns import shards


def fully_shard(model: Trunk, mesh: Any) -> None:
    """Spread every weight over the processes of `mesh`, by decoder layer.

    Gradients are summed over them, not averaged: a loss is already over the whole step's denominators. One group of weights has
    one precision, so that a value head in fp32 on a narrower trunk is a group of its own. Both settings of the reduction hold for
    one module each: they do not reach the modules inside.
    """
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.fsdp import fully_shard as shard

    apart = [m for m in model.modules() if any(p.dtype != model.dtype for p in m.parameters(recurse=False))]
    layers = [layer for hf in networks(model).values() for layer in decoder_layers(hf)]
    for part in (*apart, *layers, model):
        shard(part, mesh=mesh)
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


def decoder_layers(hf: nn.Module) -> list[nn.Module]:
    """The blocks a transformers network is a stack of: those it says must stay together, else its longest list of modules."""
    named = set(getattr(hf, "_no_split_modules", None) or ())
    found = [m for m in hf.modules() if type(m).__name__ in named]
    lists = [list(m) for m in hf.modules() if isinstance(m, nn.ModuleList)]
    return found or max(lists, key=len, default=[])


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside, every process has all weights as plain tensors: each may sample and read by itself."""
    with _gathered(model, parts := shards(model)):
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)  # else a layer is gathered again at every token
        try:
            yield
        finally:
            for part in parts:
                part.set_reshard_after_forward(part is not model, recurse=False)


@contextmanager
def but_layers(model: Trunk) -> Iterator[None]:
    """Inside, every process has embeddings, heads and norms as plain tensors, and of decoder layers its part: see `layer_turns`.

    The networks may be called, by all processes at once: a layer is gathered while it runs.
    """
    layers = {layer for hf in networks(model).values() for layer in decoder_layers(hf)} if shards(model) else set()
    with _gathered(model, [part for part in shards(model) if part not in layers]):
        yield


@contextmanager
def _gathered(model: nn.Module, parts: list[Any]) -> Iterator[None]:
    if not parts:
        yield
        return
    state = parts[0]._get_fsdp_state()
    if state._is_root is None:
        state._lazy_init()  # else a layer that is called first would take itself for the root
    hooked = {m: m._state_dict_pre_hooks for m in model.modules() if m._state_dict_pre_hooks}
    for part in parts:
        part.unshard()
    for module in hooked:
        module._state_dict_pre_hooks = OrderedDict()  # asked for its weights, it would spread them again
    try:
        yield
    finally:
        for module, before in hooked.items():
            module._state_dict_pre_hooks = before
        for part in parts:
            part.reshard()


def full(tensor: Tensor) -> Tensor:
    """All of a tensor, wherever it lies: asked of every process at once where it is spread over them."""
    spread: Any = tensor
    return spread.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def assign(target: Tensor, value: Tensor) -> None:
    """Give `target` the value that every process holds in full; of a tensor that is spread each process takes its part."""
    spread: Any = target
    if hasattr(target, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), spread.device_mesh, spread.placements, src_data_rank=None)
    target.copy_(value)
