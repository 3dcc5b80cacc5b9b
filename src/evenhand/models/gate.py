"""A network that decides, from the prompt alone, how much each output of a reward model counts."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from evenhand.core.attributes import without
from evenhand.errors import UserError
from evenhand.models.artifacts import GATE_FOLDER
from evenhand.models.heads import RewardModel
from evenhand.models.token_positions import move
from evenhand.seeding import keyed
from evenhand.types import Batch, Head, ModelOut

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True, slots=True)
class GateSettings:
    """A perceptron of `layers` hidden layers of `hidden` units, and a softmax over K outputs at `temperature`.

    What `debias` names is taken off the other outputs until their Spearman correlations with it are at most `correlation`; ""
    takes nothing off.
    """

    hidden: int = 1024
    layers: int = 3
    temperature: float = 10.0
    debias: str = ""
    correlation: float = 0.03

    def size(self, state: int, outputs: int) -> int:
        """Parameters of a gate that reads a state of so many numbers.

        >>> GateSettings(hidden=4, layers=2).size(3, 5)
        61
        """
        return sum((a + 1) * b for a, b in pairwise(self.widths(state, outputs)))

    def widths(self, state: int, outputs: int) -> list[int]:
        return [state, *[self.hidden] * self.layers, outputs]


class Gate(nn.Module):
    """Weights [P, K] of each output, that sum to 1, from the state [P, H] of a prompt's last token; fp32."""

    def __init__(self, size: int, outputs: int, settings: GateSettings) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(settings.widths(size, outputs)))
        self.temperature = settings.temperature

    @override
    def forward(self, state: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            state = layer(state if number == 0 else state.relu())
        return (state / self.temperature).softmax(-1)


class GatedRewardModel(RewardModel):
    """A reward model of K outputs, frozen, and a gate that learns: `score = sum_k g_k(prompt) (r_k - penalty_k r_debiased)`.

    `scores` [N, K] are the outputs as they are. The gate sees the state of the prompt's last token, and so nothing of the answer.
    """

    penalty: Tensor

    def __init__(self, hf: PreTrainedModel, settings: GateSettings, seed: int = 0) -> None:
        super().__init__(hf)
        self.requires_grad_(False)
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed("gate", seed))
            gate = Gate(hf.config.get_text_config().hidden_size, self.outputs, settings)
        self.gate = gate.to(self.device)
        self.register_buffer("penalty", torch.zeros(self.outputs, device=self.device))

    @property
    @override
    def gives(self) -> frozenset[Head]:
        return frozenset({Head.SCORE, Head.SCORES})

    @property
    def names(self) -> tuple[str, ...]:
        return output_names(self.hf)

    @override
    def forward(self, batch: Batch, reads: Set[Head] = frozenset({Head.SCORE}), *, temperature: float = 1.0) -> ModelOut:
        self.refuse_unknown(reads)
        with torch.no_grad():
            states = self.states(batch)
            scores = self.read_last(states)
            prompts = states.hidden.index_select(0, move(states.predictor[:, 0], states.hidden.device))
        share = self.gate(prompts.to(next(self.gate.parameters()).dtype))
        return ModelOut(scores=scores, score=(share * self.debiased(scores)).sum(-1))

    def debiased(self, scores: Tensor) -> Tensor:
        if not self.settings.debias:
            return scores
        return without(scores, self.penalty, self.names.index(self.settings.debias))

    def set_penalty(self, penalty: Sequence[float]) -> None:
        """How much of the output that `debias` names is taken off each."""
        with torch.no_grad():
            self.penalty.copy_(torch.tensor(penalty))

    def save_gate(self, folder: Path) -> None:
        from safetensors.torch import save_file

        (folder / GATE_FOLDER).mkdir()
        tensors = {**self.gate.state_dict(), "penalty": self.penalty}
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / GATE_FOLDER / "model.safetensors")
        (folder / GATE_FOLDER / "config.json").write_text(json.dumps(asdict(self.settings), indent=1) + "\n")


def output_names(hf: PreTrainedModel) -> tuple[str, ...]:
    """What the labels of a sequence classifier are called. Raises UserError for two of one name."""
    named: Any = hf.config.id2label
    names = tuple(str(named[n]) for n in sorted(named))
    if twice := {name for name in names if names.count(name) > 1}:
        fix = "give every label a name of its own in the model's config (`id2label`)"
        raise UserError(f"two labels are called '{min(twice)}'", where="reward model", fix=fix)
    return names


def load_gate(plain: RewardModel, folder: Path) -> GatedRewardModel:
    """The gate that `save_gate` wrote into a folder, on the reward model of K outputs that lies there."""
    from safetensors.torch import load_file

    settings = GateSettings(**json.loads((folder / GATE_FOLDER / "config.json").read_text()))
    model = GatedRewardModel(plain.hf, settings)
    tensors = load_file(folder / GATE_FOLDER / "model.safetensors")
    model.set_penalty(tensors.pop("penalty").tolist())
    model.gate.load_state_dict(tensors)
    return model
