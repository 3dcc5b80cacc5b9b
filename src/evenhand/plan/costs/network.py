"""A network as numbers: weights, what learns, what a token costs. From its config alone, so that none is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from typing_extensions import override

from evenhand.core import nf4
from evenhand.engines.decode_batch import key_size
from evenhand.models import adapters
from evenhand.models.adapter_config import Adapter
from evenhand.models.hidden_states import backbone
from evenhand.plan.costs.trace import TrunkCost, trunk_cost
from evenhand.plan.parameter_count import skeleton
from evenhand.train import flops

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """Of weights, and of matrix products where it is another one."""

    dtype: str
    matmul: str | None = None

    @property
    def size(self) -> int:
        """Bytes of a weight."""
        return BYTES[self.dtype]

    @property
    def products(self) -> str:
        return self.matmul or self.dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """`parameters` in all, of which `learning` learn; `head` are those of the vocabulary's matrix, `layers` the depth.

    `cached` are the numbers that a token leaves in the cache of keys and values. `shape` counts operations. `scores` says that
    the network reads a number off its last token in place of the vocabulary. `gate` are the parameters of a gate on a trunk that
    runs without gradients: nothing else learns then. `packed` weights are kept in four bits once they are loaded,
    `largest_packed` of them in one layer.
    """

    parameters: int
    learning: int
    layers: int
    hidden: int
    vocabulary: int
    head: int
    tied: bool
    cached: int
    precision: Precision
    shape: flops.Shape
    trunk: TrunkCost
    adapter: Adapter | None = None
    scores: bool = False
    gate: int = 0
    packed: int = 0
    largest_packed: int = 0

    @property
    def head_learns(self) -> bool:
        return self.shape.head_learning > 0 and not self.scores

    @property
    def weight_bytes(self) -> int:
        return (self.parameters - self.packed) * self.precision.size + round(self.packed * nf4.BITS / 8)

    @property
    def loaded_bytes(self) -> int:
        """Of the weights as they are read, before any is packed."""
        return self.parameters * self.precision.size

    @property
    def unpacked_bytes(self) -> int:
        """Of one packed layer while it computes: half bytes as indices, levels in float32, the weight in its own precision."""
        return self.largest_packed * (6 + self.precision.size)

    @property
    def layer_weights(self) -> float:
        """Weights of one layer."""
        return self.shape.weights / self.layers

    def frozen(self) -> Network:
        """The same without anything that learns."""
        return replace(self, learning=0, shape=replace(self.shape, learning=0, head_learning=0))

    def gated(self, gate: int) -> Network:
        """The same, frozen, with a gate of so many parameters that learns."""
        return replace(self.frozen(), parameters=self.parameters + gate, learning=gate, gate=gate)


def network(config: Any, precision: Precision, adapter: Adapter | None = None, *, scores: bool = False) -> Network:
    """The network of a transformers config."""
    return _network(json.dumps(config.to_dict(), sort_keys=True, default=str), _Given(config), precision, adapter, scores)


class _Given:
    """A config that takes no part in comparing calls: its text does."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Given)

    @override
    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=64)
def _network(text: str, given: _Given, precision: Precision, adapter: Adapter | None, scores: bool) -> Network:
    config, hf = given.config, skeleton(given.config)
    text_config = config.get_text_config()
    total = sum(p.numel() for p in hf.parameters())
    head = hf.get_output_embeddings().weight
    tied = head is hf.get_input_embeddings().weight
    linear = sum(m.weight.numel() for m in backbone(hf).modules() if isinstance(m, torch.nn.Linear))
    in_four_bits = adapters.linear_layers(hf).values() if adapter is not None and adapter.quantize is not None else ()
    packed = [m.weight.numel() for m in in_four_bits]
    added = 0 if adapter is None else adapters.size(hf, adapter)
    if scores:
        total -= 0 if tied else head.numel()
    learning = total if adapter is None else added
    width = getattr(text_config, "head_dim", None) or text_config.hidden_size // text_config.num_attention_heads
    shape = flops.Shape(
        weights=linear + added, learning=linear if adapter is None else added,
        head=text_config.hidden_size if scores else head.numel(),
        head_learning=(text_config.hidden_size if scores else head.numel()) if adapter is None or scores else 0,
        attention=text_config.num_attention_heads * width * text_config.num_hidden_layers,
    )  # fmt: skip
    return Network(
        parameters=total + added, learning=learning, layers=text_config.num_hidden_layers, hidden=text_config.hidden_size,
        vocabulary=text_config.vocab_size, head=head.numel(), tied=tied,
        cached=2 * text_config.num_hidden_layers * key_size(text_config),
        precision=precision, shape=shape, adapter=adapter, scores=scores, packed=sum(packed),
        largest_packed=max(packed, default=0),
        trunk=trunk_cost(config, dtype=precision.dtype, matmul=precision.matmul, adapter=adapter),
    )  # fmt: skip
