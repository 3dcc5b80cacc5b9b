"""Weights made ready for decoding: layers that read the same input become one product, laid out the way a processor reads them.

A decoding step is many small products, and half of its time goes into starting them and into reading weights in an order made for
something else. Which layers share their input (queries, keys and values; gate and up) is seen in a forward pass, not known by
name, so this holds for every architecture. The copies live as long as the decoder is ready, in the precision of its products.
A layer with an adapter is one layer with the merged weight. A row that is sampled alone in bfloat16 reads each weight as it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from evenhand.core import matmul
from evenhand.models.adapter_layers import adapted, is_adapted, merged_weight
from evenhand.models.fast_linear import FastLinear
from evenhand.models.head import ReadableLinear
from evenhand.models.packed_layers import PackedLinear

Forward = Callable[[Tensor], Tensor]
PLAIN = (nn.Linear, FastLinear, ReadableLinear, PackedLinear)
"""Layers that are nothing but a product."""
LIMIT = 512 << 20
"""Bytes copied at most where the copies have the weights' own precision: what they save does not grow with the model."""
ROWS = 64
"""Rows that weights are packed for; it works as well for others."""

_SEEN: WeakKeyDictionary[nn.Module, list[list[str]]] = WeakKeyDictionary()


@contextmanager
def prepared(hf: Any, dtype: torch.dtype | None, *, alone: bool = False) -> Iterator[None]:
    """Inside, matrix products run in `dtype` (None: the weights' own precision), as fast as this device can start them.

    `alone`: a single row is sampled.
    """
    with torch.autocast(hf.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        forwards = _forwards(hf, dtype, alone=alone and (dtype or hf.dtype) == torch.bfloat16) if _packs(hf) else {}
        before = {layer: vars(layer).get("forward") for layer in forwards}
        _replace(forwards)
        try:
            yield
        finally:
            _replace(before)


def _replace(forwards: Mapping[nn.Linear, Forward | None]) -> None:
    for layer, forward in forwards.items():
        if forward is None:
            vars(layer).pop("forward", None)
        else:
            vars(layer)["forward"] = forward


def _packs(hf: Any) -> bool:
    return hf.device.type == "cpu" and hf.dtype in (torch.float32, torch.bfloat16) and matmul.packs()


def _forwards(hf: Any, dtype: torch.dtype | None, *, alone: bool) -> dict[nn.Linear, Forward]:
    """What computes each layer, the largest first, as long as copies stay within the limit; layers that do not fit are left out.

    Largest first, because a large product gains the most: a head of 49,152 rows takes a third to a half of its time in fp32, at
    two to eight rows on a processor of AMD, and it runs last.
    """
    named = dict(hf.named_modules())
    groups = [[named[name] for name in names] for names in look(hf)]
    if alone:
        groups = [[layer] for layers in groups for layer in layers]
    held = 0
    found: dict[nn.Linear, Forward] = {}
    for layers in sorted(groups, key=_size, reverse=True):
        size = 0 if alone and _lies_there(*layers) else _size(layers) * hf.dtype.itemsize
        if dtype is not None or held + size <= LIMIT:
            held += size
            found |= dict(zip(layers, Together(layers, dtype, packs=not alone).forwards(), strict=True))
    return found


def _size(layers: Sequence[nn.Linear]) -> int:
    """Numbers in the weights, which are not read for it: reading unpacks those that are kept in four bits."""
    return sum(m.in_features * m.out_features for m in layers)


def _lies_there(layer: Any) -> bool:
    """Whether the layer's weight is kept as it is multiplied: neither in four bits nor apart from an adapter."""
    return not is_adapted(layer) and type(layer) is not PackedLinear


class Together:
    """One product of the stacked weights of `layers`: the first layer called computes it, the others take their part."""

    def __init__(self, layers: Sequence[nn.Linear], dtype: torch.dtype | None, *, packs: bool) -> None:
        self._own = [m.forward for m in layers]
        self._sizes = [m.out_features for m in layers]
        self._dtype = dtype or layers[0].weight.dtype
        weights = [_weight(m).to(self._dtype) for m in layers]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        self._product, self._weight = (
            (matmul.packed_linear, matmul.packed(weight, rows=ROWS)) if packs else (matmul.row_linear, weight)
        )
        biases: list[Tensor] = [weight.new_zeros(m.out_features) if m.bias is None else m.bias for m in layers]
        self._bias = torch.cat(biases).to(self._dtype) if any(m.bias is not None for m in layers) else None
        self._input: Tensor | None = None
        self._parts: tuple[Tensor, ...] = ()

    def forwards(self) -> list[Forward]:
        """What each layer's `forward` becomes."""
        return [self._first, *(self._other(i) for i in range(1, len(self._sizes)))]

    def _first(self, x: Tensor) -> Tensor:
        whole = self._product(x.to(self._dtype), self._weight, self._bias)
        if len(self._sizes) == 1:
            return whole
        self._input, self._parts = x, whole.split(self._sizes, dim=-1)
        return self._parts[0]

    def _other(self, index: int) -> Forward:
        def forward(x: Tensor) -> Tensor:
            return self._parts[index] if x is self._input else self._own[index](x)

        return forward


def look(hf: Any) -> list[list[str]]:
    """Names of linear layers in the order they run, those that read the same tensor together. Looked at once per model."""
    if hf not in _SEEN:
        _SEEN[hf] = _shared_inputs(hf)
    return _SEEN[hf]


def _weight(layer: Any) -> Tensor:
    return merged_weight(layer) if is_adapted(layer) else layer.weight


def _linear_layers(hf: Any) -> dict[str, Any]:
    """Linear layers by name; one with an adapter is one layer, its parts are none."""
    layers = adapted(hf)
    outer = {name for name, m in layers if type(m.base_layer) in PLAIN}
    parts = {part for _, layer in layers for part in layer.modules()}
    return {name: m for name, m in hf.named_modules() if name in outer or (type(m) in PLAIN and m not in parts)}


def _shared_inputs(hf: Any) -> list[list[str]]:
    calls: list[tuple[str, Tensor]] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, given: calls.append((name, given[0]))

    layers = _linear_layers(hf)
    hooks = [m.register_forward_pre_hook(watch(name)) for name, m in layers.items()]
    try:
        hf(input_ids=torch.zeros(1, 3, dtype=torch.long, device=hf.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    groups: dict[int, list[str]] = {}
    for name, given in calls:  # `calls` keeps every input alive, so that its id stays its own
        groups.setdefault(id(given), []).append(name)
    names = [name for name, _ in calls]
    return [g for g in groups.values() if all(names.count(name) == 1 for name in g)]
