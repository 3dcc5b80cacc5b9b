"""A causal language model's head: where the fused log-prob op meets transformers' weights.

The op runs inside the head module's own `forward`, so that hooks around it (sharding that gathers the weight, say) do their work.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.core.logprob import completion_logp, completion_logp_entropy


@dataclass(frozen=True, slots=True)
class Reading:
    """A request for log-probs (and entropy) of `ids` [M] instead of logits."""

    ids: Tensor
    temperature: float
    entropy: bool
    softcap: float | None
    scale: float
    matmul_dtype: torch.dtype | None


class Head:
    """Reads log-probs off the states that predict them. `softcap` and `scale` are found in the model's config."""

    def __init__(self, hf: nn.Module) -> None:
        module = hf.get_output_embeddings()
        self.config = hf.config
        self.module = module
        self.softcap = getattr(hf.config, "final_logit_softcapping", None)
        self.scale = logit_scale(hf.config)
        self.matmul_dtype: torch.dtype | None = None
        module.forward = MethodType(_forward, module)

    def __call__(self, hidden: Tensor, ids: Tensor, *, temperature: float, entropy: bool) -> tuple[Tensor, Tensor | None]:
        """`hidden` [M, H], `ids` [M] -> log-probs [M] and, when asked, entropies [M]."""
        return self.module(hidden, Reading(ids, temperature, entropy, self.softcap, self.scale, self.matmul_dtype))


def logit_scale(config: Any) -> float:
    """What the logits are multiplied by: Cohere's `logit_scale`, Granite's `1 / logits_scaling`, Falcon-H1's multiplier."""
    for name, invert in (("logit_scale", False), ("lm_head_multiplier", False), ("logits_scaling", True)):
        value = getattr(config, name, None)
        if isinstance(value, (int, float)) and value:
            return 1.0 / value if invert else float(value)
    return 1.0


def _forward(self: nn.Linear, hidden: Tensor, reading: Reading | None = None) -> Tensor | tuple[Tensor, Tensor | None]:
    if reading is None:
        return nn.functional.linear(hidden, self.weight, self.bias)
    named = {
        "bias": self.bias,
        "temperature": reading.temperature,
        "softcap": reading.softcap,
        "scale": reading.scale,
        "matmul_dtype": reading.matmul_dtype,
    }
    if reading.entropy:
        return completion_logp_entropy(hidden, self.weight, reading.ids, **named)
    return completion_logp(hidden, self.weight, reading.ids, **named), None
