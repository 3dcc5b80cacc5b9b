"""Which optimizer moves the weights: `train.optimizer`."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from evenhand.core.eight_bit import BLOCK
from evenhand.train.config import Train
from evenhand.train.optim import AdamW
from evenhand.train.optim_8bit import AdamW8bit


class Optimizer(Protocol):
    """Moves a model's trainable parameters by the gradients on them, and can be saved and filled."""

    learning_rate: float

    def step(self, factor: float) -> None:
        """One update at `learning_rate * factor`; the gradients are then cleared."""
        ...

    def restart(self) -> None:
        """Forget every moment and take the weights as they are now: as if made anew."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Everything that must survive a kill, as named tensors."""
        ...

    def places(self, names: Collection[str]) -> dict[str, Tensor]:
        """Where the tensors of these names go, as `tensors` named them: to be filled in place."""
        ...


class StateBytes(NamedTuple):
    """What an optimizer keeps of one weight, beside the weight and its gradient, in bytes: a copy in float32, and its moments."""

    copy: float
    moments: float


def state_bytes(optimizer: str, weight: int) -> StateBytes:
    """Of a weight of `weight` bytes.

    >>> state_bytes("adamw", 2), state_bytes("adamw_8bit", 2)
    (StateBytes(copy=4, moments=8), StateBytes(copy=0, moments=2.03125))
    """
    if optimizer == "adamw_8bit":
        return StateBytes(copy=0, moments=2 * (1 + 4 / BLOCK))
    return StateBytes(copy=0 if weight >= 4 else 4, moments=8)


def optimizer_for(model: nn.Module, train: Train, *, seed: int) -> Optimizer:
    """The optimizer that `train` names, on the model's trainable parameters; `seed` is what roundings are keyed by."""
    assert train.learning_rate is not None, "a stage's learning rate is resolved when it is planned"
    settings = {"learning_rate": train.learning_rate, "eps": train.eps, "weight_decay": train.weight_decay}
    if train.optimizer == "adamw_8bit":
        return AdamW8bit(model, betas=train.betas, seed=seed, **settings)
    return AdamW(model, betas=train.betas, **settings)
