"""Networks that read a number off the trunk: a score per completion, or a value per token."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from typing_extensions import override

from evenhand.models.artifacts import VALUE_FOLDER
from evenhand.models.backbone import Trunk
from evenhand.models.hidden_states import States, backbone
from evenhand.models.policy import Policy
from evenhand.models.token_positions import Cells, move
from evenhand.seeding import generator
from evenhand.types import Batch, Head, ModelOut

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VALUE_HEAD_FILE = f"{VALUE_FOLDER}/model.safetensors"


class RewardModel(Trunk):
    """A transformers `...ForSequenceClassification`; its K outputs are read in fp32 at the last token.

    With one label it gives `score` [N], with several `scores` [N, K] alone.
    """

    @property
    def outputs(self) -> int:
        return score_head(self.hf).out_features

    @property
    def gives(self) -> frozenset[Head]:
        return frozenset({Head.SCORE} if self.outputs == 1 else {Head.SCORES})

    @override
    def forward(self, batch: Batch, reads: Set[Head] = frozenset({Head.SCORE}), *, temperature: float = 1.0) -> ModelOut:
        self.refuse_unknown(reads)
        scores = self.read_last(self.states(batch))
        return ModelOut(score=scores[:, 0]) if Head.SCORE in reads else ModelOut(scores=scores)

    def refuse_unknown(self, reads: Set[Head]) -> None:
        if not reads or set(reads) - self.gives:
            raise ValueError(f"a reward model gives {sorted(self.gives)}, not {sorted(set(reads) - self.gives)}")

    def read_last(self, states: States) -> torch.Tensor:
        """All outputs [N, K] at each completion's last token."""
        last = states.hidden.index_select(0, move(states.last, states.hidden.device))
        return _in_fp32(score_head(self.hf), last)


class ValuePolicy(Policy):
    """A policy with a linear value head on the same trunk.

    `value[i, t]` estimates the return from the state before token t, [N, C]; 0 where `completion_mask` is False. The head starts
    at zero, so that the first advantages are the returns themselves.
    """

    def __init__(self, hf: PreTrainedModel) -> None:
        super().__init__(hf)
        size = hf.get_output_embeddings().weight.shape[1]
        self.value_head = nn.Linear(size, 1, device=self.device, dtype=torch.float32)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    gives = frozenset({Head.LOGP, Head.ENTROPY, Head.VALUE})

    @override
    def forward(self, batch: Batch, reads: Set[Head] = frozenset({Head.LOGP}), *, temperature: float = 1.0) -> ModelOut:
        self.refuse_unknown(reads)
        states = self.states(batch, routers=Head.EXPERTS in reads)
        logp = entropy = value = None
        if Head.LOGP in reads or Head.ENTROPY in reads:
            logp, entropy = self.read(states, batch, temperature=temperature, entropy=Head.ENTROPY in reads)
        if Head.VALUE in reads:
            seen = self.value_states(states, batch)
            cells = Cells(batch, seen.predictor)
            value = cells.spread(self.value_head(cells.gather(seen.hidden).float())[:, 0])
        told = self.of_vocabulary(reads, states, batch, temperature=temperature)
        return ModelOut(logp=logp, entropy=entropy, value=value, **told)

    def value_states(self, states: States, batch: Batch) -> States:
        """What the value head reads: the policy's own states."""
        return states

    def save_value_head(self, folder: Path) -> None:
        from safetensors.torch import save_file

        (folder / VALUE_HEAD_FILE).parent.mkdir()
        save_file({k: v.contiguous() for k, v in self.value_head.state_dict().items()}, folder / VALUE_HEAD_FILE)

    def load_value_head(self, folder: Path) -> None:
        """The head saved in a folder; a folder without one leaves it as it is."""
        from safetensors.torch import load_file

        if (folder / VALUE_HEAD_FILE).exists():
            self.value_head.load_state_dict(load_file(folder / VALUE_HEAD_FILE))


class CriticPolicy(ValuePolicy):
    """A policy whose value is read off a second network, the critic: the value loss then moves no weight of the policy.

    Twice the weights and nearly twice the work of `ValuePolicy`. The critic serves training alone and is not saved.
    """

    def __init__(self, hf: PreTrainedModel, critic: PreTrainedModel) -> None:
        super().__init__(hf)
        self.critic = Trunk(critic)

    @override
    def value_states(self, states: States, batch: Batch) -> States:
        return self.critic.states(batch)

    @override
    def set_checkpointing(self, on: bool = True) -> None:
        super().set_checkpointing(on)
        self.critic.set_checkpointing(on)

    @override
    def set_matmul_dtype(self, dtype: torch.dtype | None) -> None:
        super().set_matmul_dtype(dtype)
        self.critic.set_matmul_dtype(dtype)

    @override
    def save_value_head(self, folder: Path) -> None:
        """Nothing: a head without the network it reads would be misleading."""


def score_head(hf: PreTrainedModel) -> nn.Linear:
    """The one linear layer of a sequence classifier that lies outside its trunk."""
    inside = set(backbone(hf).modules())
    heads = [m for m in hf.modules() if isinstance(m, nn.Linear) and m not in inside]
    if len(heads) != 1:
        raise ValueError(f"{type(hf).__name__} does not end in one linear score head")
    return heads[0]


def scored(hf: PreTrainedModel, seed: int, *, power: float = 0.5) -> RewardModel:
    """A reward model whose score head is drawn afresh from `seed`: normal with std (H + 1) ** -power."""
    head = score_head(hf)
    std = (head.in_features + 1) ** -power
    drawn = torch.randn(head.weight.shape, generator=generator("score head", seed)) * std
    with torch.no_grad():
        head.weight.copy_(drawn)
        if head.bias is not None:
            head.bias.zero_()
    return RewardModel(hf)


def _in_fp32(head: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """In float64 where the network is."""
    wide = torch.promote_types(x.dtype, torch.float32)
    bias = None if head.bias is None else head.bias.to(wide)
    return nn.functional.linear(x.to(wide), head.weight.to(wide), bias)
