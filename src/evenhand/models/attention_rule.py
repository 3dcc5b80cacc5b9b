"""What a layer of a model asks of attention, in training and in decoding."""

from __future__ import annotations

from dataclasses import dataclass

HARMLESS = frozenset(
    {"position_ids", "position_embeddings", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits"}
)
"""Keywords of a call that do not change what attention computes."""


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """Scaling of the scores (None: 1 / sqrt(d)), a sliding window in tokens, a soft cap on scores."""

    scale: float | None = None
    window: int | None = None
    softcap: float | None = None

    def scale_for(self, size: int) -> float:
        """What scores of heads of `size` are multiplied by."""
        return size**-0.5 if self.scale is None else self.scale
