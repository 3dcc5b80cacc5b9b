"""A network whose layers have adapters: which they are, the network without them, and the network with them merged."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from evenhand.models.layer_turns import in_turn
from evenhand.models.low_rank import changed
from evenhand.models.packed_layers import PackedLinear, plain

if TYPE_CHECKING:
    from evenhand.models.backbone import Trunk
    from evenhand.types import Batch, Head, ModelOut

NAME = "default"
"""What peft calls an adapter that is the only one."""


def is_adapted(module: Any) -> bool:
    """Whether a module is a layer with an adapter."""
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")


def adapted(hf: nn.Module) -> list[tuple[str, Any]]:
    """The layers with an adapter, by their names in the plain network."""
    return [(name, m) for name, m in hf.named_modules() if is_adapted(m)]


def learned(layer: Any) -> dict[str, nn.Parameter]:
    """What a layer with an adapter learns, by its names in peft's files: A, B and, with DoRA, m."""
    parts = {"lora_A.weight": layer.lora_A, "lora_B.weight": layer.lora_B, "lora_magnitude_vector": layer.lora_magnitude_vector}
    return {key: part[NAME].weight for key, part in parts.items() if NAME in part}


def merged_weight(layer: Any) -> Tensor:
    """What a layer with an adapter weighs, `W + s B A` or that with rows of the lengths m; at least in float32."""
    a, b, *m = learned(layer).values()
    return changed(layer.base_layer.weight, a, b, layer.scaling[NAME], *m, transposed=layer.fan_in_fan_out)


@contextmanager
def removed(hf: nn.Module) -> Iterator[None]:
    """Inside, the network is the plain one without its adapter."""
    before = adapted(hf)
    for name, layer in before:
        put(hf, name, layer.base_layer)
    try:
        yield
    finally:
        for name, layer in before:
            put(hf, name, layer)


@contextmanager
def merged(hf: nn.Module) -> Iterator[None]:
    """Inside, the network is the plain one, its weights merged in float32 and rounded to their own precision, none packed."""
    inside = {layer.base_layer for _, layer in adapted(hf)}
    alone = [(name, m) for name, m in hf.named_modules() if type(m) is PackedLinear and m not in inside]
    with _replaced(hf, [*adapted(hf), *alone], whole):
        yield


@contextmanager
def merged_in_turn(hf: nn.Module) -> Iterator[None]:
    """Inside, the network computes as inside `merged`, where each layer's weights are merged for its own product alone."""
    with _replaced(hf, adapted(hf), _MergedWhenUsed):
        yield


@contextmanager
def _replaced(hf: nn.Module, layers: Sequence[tuple[str, Any]], by: Callable[[Any], nn.Module]) -> Iterator[None]:
    try:
        for name, layer in layers:
            put(hf, name, by(layer))
        yield
    finally:
        for name, layer in layers:
            put(hf, name, layer)


def whole(layer: Any) -> nn.Module:
    """A layer with an adapter, or a packed one, as the plain layer that it stands for."""
    base, weight = (layer.base_layer, merged_weight(layer)) if is_adapted(layer) else (layer, layer.weight)
    if type(base) is PackedLinear:
        return plain(base, weight.to(base.dtype))
    made = copy.copy(base)
    made._parameters = {**base._parameters, "weight": nn.Parameter(weight.to(base.weight.dtype), requires_grad=False)}
    return made


class _MergedWhenUsed(nn.Module):
    """A layer with an adapter as the plain layer with merged weights, which no one holds between two calls."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.adapted = (layer,)  # in a tuple, so that it is no part of this module

    @override
    def forward(self, x: Tensor) -> Tensor:
        return whole(self.adapted[0])(x)


@torch.no_grad()
def lost(hf: nn.Module) -> float:
    """The share of the change that rounding merged weights to their own precision takes away: ||error|| / ||change||.

    A weight of bfloat16 keeps 8 bits: a change below half of its last bit is lost entirely. 0 where nothing has changed.
    """
    errors, changes = [], []
    layers = dict(adapted(hf))
    for name in in_turn(hf, layers):
        layer = layers[name]
        exact, weight = merged_weight(layer), layer.base_layer.weight
        errors.append((exact - exact.to(weight.dtype).to(exact.dtype)).norm().double())
        changes.append((exact - weight.to(exact.dtype)).norm().double())
    change = float(torch.stack(changes).norm())
    return float(torch.stack(errors).norm()) / change if change else 0.0


def put(hf: nn.Module, name: str, layer: nn.Module) -> None:
    """Let `layer` be the module called `name`."""
    place, _, leaf = name.rpartition(".")
    hf.get_submodule(place)._modules[leaf] = layer


@dataclass(frozen=True, slots=True)
class Start:
    """A policy without its adapter, which is what it began as, in the same memory; for passes without gradient.

    Not where modules learn whole: of those nothing but the trained weights is kept.
    """

    policy: Trunk

    def __call__(self, batch: Batch, reads: frozenset[Head], *, temperature: float = 1.0) -> ModelOut:
        with removed(self.policy.hf):
            return self.policy(batch, reads, temperature=temperature)

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.policy.parameters()
