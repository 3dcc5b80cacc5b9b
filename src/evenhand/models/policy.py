"""A trainable policy seen through batches: log-probs of completions, and entropy when asked."""

from __future__ import annotations

import warnings
from collections.abc import Set
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from evenhand.core import kl
from evenhand.errors import UserError
from evenhand.models import checked, divergence
from evenhand.models.backbone import Trunk
from evenhand.models.head import FusedHead, LogitsHead
from evenhand.models.hidden_states import States, padded_states
from evenhand.models.layout_check import head_problem, logits_problem, routers_problem
from evenhand.models.token_positions import Cells
from evenhand.types import Batch, Head, ModelOut


class Policy(Trunk):
    """A transformers causal language model `hf` on packed prompt trees.

    `policy(batch, reads, temperature=1.0)` gives `logp` [N, C], and `entropy` [N, C] when `Head.ENTROPY` is read, in nats;
    0 where `completion_mask` is False. `head_mode` is "fused", or "logits" when a self-check at construction found that the
    model's logits are not what its head's weights and config say.
    """

    gives = frozenset({Head.LOGP, Head.ENTROPY, Head.COLLISION})
    frozen: Policy | None = None
    measure: divergence.Comparison = staticmethod(kl.exact)

    head_mode = "logits"
    _head: LogitsHead | FusedHead = LogitsHead()

    def compared_to(self, frozen: Policy, measure: divergence.Comparison = kl.exact) -> Self:
        """The same policy, which from now on also gives what is told by comparing it to `frozen`, a policy over the same tokens:
        `Head.KL` (or another `measure` in its place), `Head.REFERENCE_KL` and `Head.REFERENCE_ENTROPY`.

        The frozen policy is looked at, not owned: it is neither trained nor saved.
        """
        object.__setattr__(self, "frozen", frozen.requires_grad_(False))
        object.__setattr__(self, "measure", measure)
        self.gives = self.gives | divergence.OF_BOTH.keys()
        return self

    @override
    def forward(self, batch: Batch, reads: Set[Head] = frozenset({Head.LOGP}), *, temperature: float = 1.0) -> ModelOut:
        self.refuse_unknown(reads)
        balanced = Head.EXPERTS in reads
        states = self.states(batch, routers=balanced) if self.head_mode == "fused" or balanced else None
        logp = entropy = None
        if Head.LOGP in reads or Head.ENTROPY in reads:
            logp, entropy = self.read(states, batch, temperature=temperature, entropy=Head.ENTROPY in reads)
        return ModelOut(logp=logp, entropy=entropy, **self.of_vocabulary(reads, states, batch, temperature=temperature))

    def of_vocabulary(self, reads: Set[Head], states: States | None, batch: Batch, *, temperature: float) -> dict[str, Tensor]:
        """What only the whole distribution tells, of those that are read, [N, C] each, and what the routers chose."""
        told = {h.value: self.compared(h, states, batch, temperature=temperature) for h in reads & divergence.OF_BOTH.keys()}
        if Head.COLLISION in reads:
            told["collision"] = self.collision(states, batch, temperature=temperature)
        if Head.EXPERTS in reads:
            assert states is not None
            assert states.experts is not None
            told["experts"] = states.experts
        return told

    def with_routers(self) -> Self:
        """The same policy, which from now on also gives `Head.EXPERTS`. UserError where its routers cannot be read."""
        if (problem := checked.problem(routers_problem, self.hf)) is not None:
            raise UserError(
                f"the routers of {type(self.hf).__name__} cannot be balanced", why=problem, where="train.router_loss",
                fix="set `train: {router_loss: 0}`: the objective alone is minimised",
            )  # fmt: skip
        self.gives = self.gives | {Head.EXPERTS}
        return self

    def compared(self, head: Head, states: States | None, batch: Batch, *, temperature: float) -> Tensor:
        """What `divergence.OF_BOTH[head]` says [N, C] of the distributions that each counted token was drawn from, nats; of
        `Head.KL`, what `measure` says."""
        assert self.frozen is not None
        with torch.no_grad():
            _, other = self.frozen.predicting(None, batch.shown or batch)
        cells, own = self.predicting(states, batch)
        read, read_other = (partial(p._head.log_probs, temperature=temperature) for p in (self, self.frozen))
        width = self.hf.config.get_text_config().vocab_size
        compare = self.measure if head is Head.KL else divergence.OF_BOTH[head]
        return cells.spread(divergence.by_chunk(own, other, read, read_other, compare, vocabulary=width))

    @torch.no_grad()
    def collision(self, states: States | None, batch: Batch, *, temperature: float) -> Tensor:
        """`log sum_v p(v)^2` [N, C] of the distribution that each counted token was drawn from, without gradient."""
        cells, own = self.predicting(states, batch)
        size = divergence.rows(self.hf.config.get_text_config().vocab_size)
        parts = [(2 * self._head.log_probs(part, temperature=temperature)).logsumexp(-1) for part in own.split(size)]
        return cells.spread(torch.cat(parts) if parts else own.new_zeros(0))

    def predicting(self, states: States | None, batch: Batch) -> tuple[Cells, Tensor]:
        """The cells of a batch, and the states [M, H] that predict them (the model's own logits where its head is not fused)."""
        if self.head_mode == "logits":
            with self.running():
                states = padded_states(self.hf, batch, logits=True)
        states = self.states(batch) if states is None else states
        cells = Cells(batch, states.predictor)
        return cells, cells.gather(states.hidden)

    def read(self, states: States | None, batch: Batch, *, temperature: float, entropy: bool) -> tuple[Tensor, Tensor | None]:
        """Log-probs and entropy [N, C] off the states that predict each counted token (None: off the model's own logits)."""
        cells, flat = self.predicting(states, batch)
        logp, spread = self._head(flat, cells.ids(), temperature=temperature, entropy=entropy, matmul_dtype=self.matmul_dtype)
        return cells.spread(logp), None if spread is None else cells.spread(spread)

    @override
    def settle(self) -> None:
        super().settle()
        module = self.hf.get_output_embeddings()
        problem = None if isinstance(module, nn.Linear) else f"its head is a {type(module).__name__}, not a linear layer"
        if problem is None:
            head = FusedHead(self.hf)
            problem = checked.problem(head_problem, self.hf, head)
            if problem is None:
                self.head_mode, self._head = "fused", head
                return
            head.remove()
        if (broken := logits_problem(self.hf)) is not None:
            raise UserError(
                f"{type(self.hf).__name__} cannot be trained on completions: {broken}", fix="use another architecture"
            )
        warnings.warn(f"{type(self.hf).__name__} computes full logits, correct but slower: {problem}", stacklevel=2)

    def refuse_unknown(self, reads: Set[Head]) -> None:
        if unknown := sorted(set(reads) - self.gives):
            raise ValueError(f"{type(self).__name__} does not give {', '.join(unknown)}")
