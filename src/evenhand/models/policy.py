"""A trainable policy seen through batches: log-probs of completions, and entropy when asked."""

from __future__ import annotations

import warnings
from collections.abc import Set

from torch import Tensor, nn

from evenhand.models.cells import Cells
from evenhand.models.head import FusedHead, LogitsHead
from evenhand.models.selfcheck import head_problem
from evenhand.models.states import States, padded_states
from evenhand.models.trunk import Trunk
from evenhand.types import Batch, Head, ModelOut


class Policy(Trunk):
    """A transformers causal language model `hf` on packed prompt trees.

    `policy(batch, reads, temperature=1.0)` gives `logp` [N, C], and `entropy` [N, C] when `Head.ENTROPY` is read, in nats;
    0 where `completion_mask` is False. `head_mode` is "fused", or "logits" when a self-check at construction found that the
    model's logits are not what its head's weights and config say.
    """

    gives = frozenset({Head.LOGP, Head.ENTROPY})

    def __init__(self, hf: nn.Module) -> None:
        super().__init__(hf)
        self.head_mode, self._head = "logits", LogitsHead()
        self._settle_head()

    def forward(self, batch: Batch, reads: Set[Head] = frozenset({Head.LOGP}), *, temperature: float = 1.0) -> ModelOut:
        self.refuse_unknown(reads)
        states = self.states(batch) if self.head_mode == "fused" else None
        logp, entropy = self.read(states, batch, temperature=temperature, entropy=Head.ENTROPY in reads)
        return ModelOut(logp=logp, entropy=entropy)

    def read(self, states: States | None, batch: Batch, *, temperature: float, entropy: bool) -> tuple[Tensor, Tensor | None]:
        """Log-probs and entropy [N, C] off the states that predict each counted token (None: off the model's own logits)."""
        if self.head_mode == "logits":
            with self.running():
                states = padded_states(self.hf, batch, logits=True)
        cells = Cells(batch, states.predictor)
        flat = cells.gather(states.hidden)
        logp, spread = self._head(flat, cells.ids(), temperature=temperature, entropy=entropy, matmul_dtype=self.matmul_dtype)
        return cells.spread(logp), None if spread is None else cells.spread(spread)

    def _settle_head(self) -> None:
        module = self.hf.get_output_embeddings()
        problem = None if isinstance(module, nn.Linear) else f"its head is a {type(module).__name__}, not a linear layer"
        if problem is None:
            head = FusedHead(self.hf)
            problem = head_problem(self.hf, head)
            if problem is None:
                self.head_mode, self._head = "fused", head
                return
            head.remove()
        warnings.warn(f"{type(self.hf).__name__} computes full logits, correct but slower: {problem}", stacklevel=2)

    def refuse_unknown(self, reads: Set[Head]) -> None:
        if unknown := sorted(set(reads) - self.gives):
            raise ValueError(f"{type(self).__name__} does not give {', '.join(unknown)}")
