"""What a trunk keeps and moves, seen by running it without memory: on fake tensors, layer by layer.

torch's fake tensors have shapes and no values, so that a network of any size runs here in a second. Its forward and backward pass
is watched operation by operation: which storages are alive, and how many bytes elementwise operations read and write.
Two depths and two lengths of a row give what a layer keeps per token and whatever the length, and the same of the rest.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from evenhand.models import adapters, attention
from evenhand.models.adapter_config import Adapter
from evenhand.models.backbone import without_dropout
from evenhand.models.fast_linear import with_fast_products
from evenhand.models.hidden_states import backbone
from evenhand.models.tree_attention import Tree
from evenhand.types import Layout, Span

LENGTHS = (96, 192)
"""Tokens of the rows that are traced."""
PRODUCTS = ("mm", "bmm", "addmm", "linear", "convolution", "_linear_pointwise")
"""Operations whose time is their arithmetic, not the bytes they touch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PerToken:
    """`per_token * tokens + fixed`, in bytes, and never less than none."""

    per_token: float
    fixed: float

    def at(self, tokens: float) -> float:
        return max(self.per_token * tokens + self.fixed, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrunkCost:
    """Bytes of one micro-batch: what a `layer` keeps for the backward pass, and what the rest of the trunk keeps.

    `working` is what the backward pass of a layer needs beside what is kept, `without` what a layer needs in a pass without
    gradients. `moved` are the bytes that elementwise operations of a layer read and write, forward and backward.
    """

    layer: PerToken
    rest: PerToken
    working: PerToken
    without: PerToken
    moved_forward: PerToken
    moved_backward: PerToken


def trunk_cost(config: Any, *, dtype: str, matmul: str | None = None, adapter: Adapter | None = None) -> TrunkCost:
    """The trunk of the network that `config` describes, in this precision of weights and of products."""
    seen = {(n, t): _traced(config, n, t, dtype, matmul, adapter) for n in (1, 2) for t in LENGTHS}
    short, long = LENGTHS

    def line(a: float, b: float) -> PerToken:
        slope = (b - a) / (long - short)
        return PerToken(per_token=slope, fixed=a - slope * short)

    def layer(name: str) -> PerToken:
        return line(*(seen[2, t][name] - seen[1, t][name] for t in LENGTHS))

    rest = line(*(2 * seen[1, t]["kept"] - seen[2, t]["kept"] for t in LENGTHS))
    return TrunkCost(
        layer=layer("kept"), rest=rest, working=line(*(seen[2, t]["working"] for t in LENGTHS)),
        without=line(*(seen[2, t]["without"] for t in LENGTHS)), moved_forward=layer("forward"), moved_backward=layer("backward"),
    )  # fmt: skip


def _traced(
    config: Any, layers: int, tokens: int, dtype: str, matmul: str | None, adapter: Adapter | None
) -> Mapping[str, float]:
    """Bytes of a network of so many layers on one row: a third of it prompt, then two completions."""
    network = fake_network(config, layers, dtype, adapter)
    low = None if matmul in (None, dtype) else getattr(torch, str(matmul))
    with network.mode, LiveBytes(network.hf) as live:
        with torch.no_grad():
            network.run(tokens, low)
        without = live.peak
        live.restart()
        began = live.held
        hidden = network.run(tokens, low)
        kept, forward = live.held - began, live.moved
        live.restart()
        full = live.held
        hidden.sum().backward()
        return {"kept": kept, "working": live.peak - full, "without": without, "forward": forward, "backward": live.moved}


@dataclass(frozen=True, slots=True)
class FakeNetwork:
    """A network whose weights take no memory; everything about it happens inside `mode`."""

    hf: Any
    mode: FakeTensorMode

    def run(self, tokens: int, low: torch.dtype | None) -> Tensor:
        """The hidden states of one packed row, products in the precision `low` (None: the weights')."""
        prompt, answer = tokens - 2 * (tokens // 3), tokens // 3
        spans = Span(prompt, answer), Span(prompt + answer, answer)
        layout = Layout((Span(0, prompt),), spans, (0, 0))
        positions = torch.zeros(tokens, dtype=torch.long)
        unused = torch.ones((1, 1, 1, 1), dtype=torch.bool)
        with torch.autocast("cpu", low or torch.bfloat16, enabled=low is not None):
            out = backbone(self.hf)(
                input_ids=positions[None], position_ids=positions[None], attention_mask=unused, use_cache=False,
                tree=Tree(layout, positions),
            )  # fmt: skip
        return out.last_hidden_state


def fake_network(config: Any, layers: int, dtype: str, adapter: Adapter | None) -> FakeNetwork:
    """A network of this shape with so many layers, ready for packed rows. All but the embeddings learn, or an adapter alone."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(shortened(config, layers), dtype=getattr(torch, dtype))
    attention.register()
    hf.set_attn_implementation(attention.NAME)
    hf.requires_grad_(adapter is None)
    if adapter is not None:
        chosen = adapters.targeted(hf, adapter.targets)
        with torch.device("meta"):
            adapters.inject(hf, adapter, chosen)
    hf.get_input_embeddings().requires_grad_(False)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        _weightless(hf)
    without_dropout(hf)
    with_fast_products(hf)
    hf.eval()
    for parameter in hf.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_forget)
    return FakeNetwork(hf, mode)


def shortened(config: Any, layers: int) -> Any:
    """The config of the same network with fewer layers."""
    short = copy.deepcopy(config)
    text = short.get_text_config()
    text.num_hidden_layers = layers
    for name, value in vars(text).items():
        if isinstance(value, list) and len(value) > layers and name.startswith("layer_"):
            setattr(text, name, value[:layers])
    return short


def _weightless(hf: nn.Module) -> None:
    """Every weight and buffer, on no device before, as a fake one of the processor; what was tied stays tied."""
    made: dict[Tensor, Tensor] = {}

    def fake(t: Tensor) -> Tensor:
        if t not in made:
            plain = torch.empty(t.shape, dtype=t.dtype, device="cpu")
            made[t] = nn.Parameter(plain, requires_grad=t.requires_grad) if isinstance(t, nn.Parameter) else plain
        return made[t]

    for module in hf.modules():
        for held in (module._parameters, module._buffers):
            for name, value in list(held.items()):
                if value is not None:
                    held[name] = fake(value)  # type: ignore[assignment]


def _forget(parameter: nn.Parameter) -> None:
    """Gradients of weights are counted elsewhere."""
    parameter.grad = None


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are alive inside (`held`, at most `peak`), and those that elementwise operations `moved`.

    What `network` holds from the beginning is not counted.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.held = self.peak = self.moved = 0
        self._known = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}

    def restart(self) -> None:
        """The peak and what was moved are counted from here."""
        self.peak, self.moved = self.held, 0

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        read = {t.untyped_storage()._cdata: t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        fresh = [t for t in made if t.untyped_storage()._cdata not in read]
        if fresh and not any(name in func.name() for name in PRODUCTS):
            self.moved += sum(t.nbytes for t in (*fresh, *read.values()))
        for t in made:
            self._see(t)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        name, size = storage._cdata, storage.nbytes()
        if name in self._known:
            return
        self._known.add(name)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._gone, name, size)

    def _gone(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.held -= size
