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
from evenhand.models.layer_turns import decoder_layers, shards
from evenhand.models.spread_load import read


def fully_shard(model: Trunk, mesh: Any) -> None:
    """Spread every weight over the processes of `mesh`, by decoder layer, each as soon as it is read from its files.

    Gradients are summed over them, not averaged: a loss is already over the whole step's denominators. One group of weights has
    one precision, so that a value head in fp32 on a narrower trunk is a group of its own. Both settings of the reduction hold for
    one module each: they do not reach the modules inside.
    """
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.fsdp import fully_shard as shard

    def spread(part: nn.Module) -> None:
        inside = [m for m in part.modules() if m is not part and not isinstance(m, FSDPModule)]
        apart = [m for m in inside if any(p.dtype != model.dtype for p in m.parameters(recurse=False))]
        for piece in (*apart, part):
            shard(piece, mesh=mesh)

    for hf in networks(model).values():
        for name, layer in decoder_layers(hf).items():
            read(hf, name)
            spread(layer)
    spread(model)
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


def settle(model: Trunk) -> None:
    """Settle networks whose layers were in files when they were made; asked of all processes at once."""
    if unsettled := [m for m in model.modules() if isinstance(m, Trunk) and not m.settled]:
        with but_layers(model):
            for trunk in unsettled:
                trunk.settle()


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
    layers = {layer for hf in networks(model).values() for layer in decoder_layers(hf).values()} if shards(model) else set()
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
