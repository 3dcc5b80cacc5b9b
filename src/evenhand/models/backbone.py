"""The part of a network every head shares: a transformers model made ready to run on packed trees."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from typing_extensions import override

from evenhand.errors import UserError
from evenhand.models import attention, checked
from evenhand.models.adapter_config import Adapter
from evenhand.models.fast_linear import with_fast_products
from evenhand.models.hidden_states import States, padded_states, tree_states
from evenhand.models.layout_check import padding_problem, tree_problem
from evenhand.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Trunk(nn.Module):
    """A transformers model `hf` and the layout it runs on.

    Dropout is always off, in training too, so that a policy and its own rollouts agree exactly.
    `layout_mode` is "tree", or "padded" when a self-check at construction found that tree and plain forward passes differ.
    A network whose layers are still in files is checked once they are here (`settle`), by who reads them.
    `adapter` is what `adapters.attach` gave it: None where all weights learn.
    """

    adapter: Adapter | None = None
    settled = False
    hf: PreTrainedModel

    def __init__(self, hf: PreTrainedModel) -> None:
        super().__init__()
        self.hf = hf
        without_dropout(hf)
        with_fast_products(hf)
        hf.eval()
        self.checkpointing = False
        self.matmul_dtype: torch.dtype | None = None
        self.layout_mode = "tree"
        if not any(weight.is_meta for weight in hf.parameters()):
            self.settle()

    @property
    def device(self) -> torch.device:
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.hf.parameters()).dtype

    @override
    def train(self, mode: bool = True) -> Trunk:
        """Only the flag: the network itself always runs with eval semantics."""
        self.training = mode
        return self

    def set_checkpointing(self, on: bool = True) -> None:
        """Recompute layers in the backward pass instead of keeping their activations. The gradients are identical."""
        hf, how = self.hf, {"use_reentrant": False}
        if hasattr(hf, "activation_checkpointing_enable"):  # the name since transformers 5.2x
            hf.activation_checkpointing_enable(how) if on else hf.activation_checkpointing_disable()
        else:
            hf.gradient_checkpointing_enable(how) if on else hf.gradient_checkpointing_disable()
        self.checkpointing = on

    def set_matmul_dtype(self, dtype: torch.dtype | None) -> None:
        """Run matrix products in another precision (bf16 is several times faster where it is built in); None: the weights'.

        Weights, their gradients and sums over the vocabulary keep their precision.
        """
        self.matmul_dtype = dtype

    def states(self, batch: Batch, *, routers: bool = False) -> States:
        """Hidden states of a batch in this model's layout; with `routers`, how its experts were chosen as well."""
        with self.running():
            return (tree_states if self.layout_mode == "tree" else padded_states)(self.hf, batch, routers=routers)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The state of mind in which the network runs: precision of products, and checkpointing."""
        low = self.matmul_dtype
        with self._layers_in_training(), torch.autocast(self.device.type, low or torch.bfloat16, enabled=low is not None):
            yield

    @contextmanager
    def _layers_in_training(self) -> Iterator[None]:
        """transformers checkpoints a layer only while the layer (not its children) says it is training."""
        layers = [m for m in self.hf.modules() if getattr(m, "gradient_checkpointing", False)] if self.checkpointing else []
        try:
            for layer in layers:
                layer.training = True
            yield
        finally:
            for layer in layers:
                layer.training = False

    def settle(self) -> None:
        """Find out what the network can be run on. Of one that processes share: see `sharding.settle`."""
        self.settled = True
        name = type(self.hf).__name__
        if (problem := checked.problem(padding_problem, self.hf)) is not None:
            raise UserError(f"{name} cannot be trained on completions: {problem}", fix="use a causal language model")
        before = self.hf.config._attn_implementation
        problem = _adopt(self.hf) or checked.problem(tree_problem, self.hf)
        if problem is None:
            return
        self.layout_mode = "padded"
        if self.hf.config._attn_implementation != before:
            self.hf.set_attn_implementation(before)
        warnings.warn(f"{name} runs on padded rows, correct but slower: {problem}", stacklevel=2)


def without_dropout(hf: nn.Module) -> None:
    """Set every dropout probability in the live modules to zero; the config, and so what is saved, stays as it is."""
    for module in hf.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
                setattr(module, name, 0.0)


def _adopt(hf: Any) -> str | None:
    """Switch `hf` to tree attention; a reason when its code does not look attention functions up."""
    attention.register()
    if not hf._can_set_attn_implementation():
        return "its attention cannot be replaced"
    hf.set_attn_implementation(attention.NAME)
    if hf.config._attn_implementation != attention.NAME:
        return "its attention cannot be replaced"
    return None
