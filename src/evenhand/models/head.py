"""A causal language model's head: where the fused log-prob op meets transformers' weights.

The op runs inside the head module's own `forward`, so that hooks around it (sharding that gathers the weight, say) do their work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from evenhand.core.logprob import completion_logp, completion_logp_entropy
from evenhand.models.fast_linear import FastLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class HeadReading:
    """A request for log-probs (and entropy) of `ids` [M] instead of logits; `named` are the op's other arguments."""

    ids: Tensor
    entropy: bool
    named: dict[str, Any]


class ReadableLinear(FastLinear):
    """A head that gives log-probs where a reading of it is asked for."""

    @override
    def forward(self, input: Tensor, reading: HeadReading | None = None) -> Any:
        if reading is None:
            return super().forward(input)
        if reading.entropy:
            return completion_logp_entropy(input, self.weight, reading.ids, bias=self.bias, **reading.named)
        return completion_logp(input, self.weight, reading.ids, bias=self.bias, **reading.named), None


class FusedHead:
    """Reads log-probs off hidden states. Soft-capping and scale of the logits are found in the model's config."""

    def __init__(self, hf: PreTrainedModel) -> None:
        self._module = hf.get_output_embeddings()
        self._softcap = logit_softcap(hf.config)
        self._scale = logit_scale(hf.config)
        self._before = type(self._module)
        self._module.__class__ = ReadableLinear

    def remove(self) -> None:
        """Let the module be what it was."""
        self._module.__class__ = self._before

    def __call__(
        self, hidden: Tensor, ids: Tensor, *, temperature: float, entropy: bool, matmul_dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`hidden` [M, H], `ids` [M] -> log-probs [M] and, when asked, entropies [M], in nats."""
        named = {"temperature": temperature, "softcap": self._softcap, "scale": self._scale, "matmul_dtype": matmul_dtype}
        return self._module(hidden, HeadReading(ids, entropy, named))

    def log_probs(self, hidden: Tensor, *, temperature: float) -> Tensor:
        """The whole distribution after each state, [M, H] -> [M, V], nats: for small M, since it is kept."""
        logits = _wide(self._module(hidden) * self._scale)
        if self._softcap is not None:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        return torch.log_softmax(logits / temperature, dim=-1)


class LogitsHead:
    """Reads log-probs off logits a model computed itself: for heads that are more than a linear layer, a scale and a cap."""

    def __call__(
        self, logits: Tensor, ids: Tensor, *, temperature: float, entropy: bool, matmul_dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`logits` [M, V], `ids` [M] -> log-probs [M] and, when asked, entropies [M], in nats."""
        logp = self.log_probs(logits, temperature=temperature)
        chosen = logp.gather(1, ids[:, None])[:, 0]
        return chosen, -(logp.exp() * logp).sum(1) if entropy else None

    def log_probs(self, logits: Tensor, *, temperature: float) -> Tensor:
        """The whole distribution, [M, V] -> [M, V], nats."""
        return torch.log_softmax(_wide(logits) / temperature, dim=-1)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def logit_softcap(config: Any) -> float | None:
    """What the logits are capped at, by tanh: the name differs between Gemma, RecurrentGemma and xLSTM."""
    text = config.get_text_config()
    names = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    return next((float(value) for name in names if (value := getattr(text, name, None))), None)


def logit_scale(config: Any) -> float:
    """What the logits are multiplied by: Cohere's `logit_scale`, Falcon-H1's multiplier, one over Granite's `logits_scaling`."""
    for name, invert in (("logit_scale", False), ("lm_head_multiplier", False), ("logits_scaling", True)):
        value = getattr(config.get_text_config(), name, None)
        if isinstance(value, (int, float)) and value:
            return 1.0 / value if invert else float(value)
    return 1.0
