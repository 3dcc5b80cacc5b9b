"""What a layer of a model asks of attention, in training and in decoding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """Scaling of the scores (None: 1 / sqrt(d)), a sliding window in tokens, a soft cap on scores."""

    scale: float | None = None
    window: int | None = None
    softcap: float | None = None

    def scale_for(self, size: int) -> float:
        """What scores of heads of `size` are multiplied by."""
        return size**-0.5 if self.scale is None else self.scale
