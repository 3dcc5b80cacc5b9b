"""A trainable policy seen through batches: log-probs of completions, and entropy when asked."""

from __future__ import annotations

from collections.abc import Set

import torch
from torch import Tensor, nn

from evenhand.data.batch import completion_ids
from evenhand.models.head import Head as LanguageHead
from evenhand.models.states import States
from evenhand.models.trunk import Trunk
from evenhand.types import Batch, Head, ModelOut


class Policy(Trunk):
    """A transformers causal language model `hf` on packed prompt trees.

    `policy(batch, reads, temperature=1.0)` gives `logp` [N, C], and `entropy` [N, C] when `Head.ENTROPY` is read, in nats;
    0 where `completion_mask` is False.
    """

    def __init__(self, hf: nn.Module) -> None:
        super().__init__(hf)
        self._head = LanguageHead(hf)

    def forward(self, batch: Batch, reads: Set[Head] = frozenset({Head.LOGP}), *, temperature: float = 1.0) -> ModelOut:
        if unknown := set(reads) - {Head.LOGP, Head.ENTROPY}:
            raise ValueError(f"a policy has no head {sorted(unknown)}")
        states = self.states(batch)
        logp, entropy = self.read(states, batch, temperature=temperature, entropy=Head.ENTROPY in reads)
        return ModelOut(logp=logp, entropy=entropy)

    def read(self, states: States, batch: Batch, *, temperature: float, entropy: bool) -> tuple[Tensor, Tensor | None]:
        """Log-probs and entropy [N, C] off the states that predict each counted token."""
        counted = batch.completion_mask
        flat = states.hidden.index_select(0, states.predictor[counted])
        out = self._head(flat, completion_ids(batch)[counted], temperature=temperature, entropy=entropy)
        return spread(out[0], counted), None if out[1] is None else spread(out[1], counted)


def spread(values: Tensor, counted: Tensor) -> Tensor:
    """Values [M] at the True cells of `counted` [N, C], 0 elsewhere."""
    return torch.zeros(counted.shape, dtype=values.dtype, device=values.device).masked_scatter(counted, values)
