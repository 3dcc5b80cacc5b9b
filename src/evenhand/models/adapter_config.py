"""What an experiment file says about an adapter: which layers learn by one, and how large it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from evenhand.errors import UserError

RATE = 10.0
"""Learning rate of an adapter where none is named, over the method's own (Schulman et al. 2025, LoRA Without Regret)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """Which layers learn by an adapter and how large it is: keys of `train: {adapter: ...}`.

    A [rank, in] starts uniform in +-1/sqrt(in), B [out, rank] at zero, so that training begins at the start itself. The change
    is scaled by alpha / rank, or by alpha / sqrt(rank) with `rslora`. With `form: dora` the lengths of the changed weight's rows
    learn as well (`models.low_rank`). `targets` are names of linear layers, or ends of such names ("q_proj"); `modules_to_save`
    are modules that learn all of their weights. Dropout is always off here, so `dropout` is 0.

    >>> Adapter(rank=8).scale, Adapter(rank=16, rslora=True).scale
    (4.0, 8.0)
    """

    form: Literal["lora", "dora"] = "lora"
    """lora: W + s B A; dora: the rows of that, their lengths learned apart."""
    rank: int = 16
    """Rank of the change of each layer."""
    alpha: float = 32.0
    """The change is scaled by alpha / rank."""
    targets: Literal["all_linear"] | tuple[str, ...] = "all_linear"
    """Which layers: all_linear, or names and ends of names such as q_proj."""
    rslora: bool = False
    """Whether the change is scaled by alpha / sqrt(rank) instead."""
    modules_to_save: tuple[str, ...] = ()
    """Modules that learn all of their weights."""
    quantize: Literal["nf4"] | None = None
    """Keep the frozen linear layers of the start in four bits while training (QLoRA): nf4."""
    dropout: float = 0.0
    """Always 0: a policy and its own samples must agree exactly."""

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def problems(self, where: str) -> Iterator[UserError]:
        """What cannot be meant, whatever the model is."""
        if self.rank < 1:
            yield UserError(f"a rank of {self.rank}", where=f"{where}.rank", fix="use at least 1")
        if not self.alpha > 0:
            yield UserError(f"alpha is {self.alpha:g}", where=f"{where}.alpha", why="nothing would change", fix="use e.g. 32")
        if self.dropout:
            yield UserError(
                f"dropout is {self.dropout:g}", where=f"{where}.dropout", fix="remove it",
                why="dropout is always off here, so that a policy and its own samples agree exactly",
            )  # fmt: skip
        if isinstance(self.targets, str) != (self.targets == "all_linear") or not self.targets:
            yield UserError(
                "no layer is named", where=f"{where}.targets", fix="use all_linear, or a list such as [q_proj, v_proj]"
            )

    @override
    def __str__(self) -> str:
        targets = "all linear layers" if self.targets == "all_linear" else ", ".join(self.targets)
        whole = f", {', '.join(self.modules_to_save)} whole" if self.modules_to_save else ""
        rooted = ", rslora" if self.rslora else ""
        start = f", the start in {self.quantize}" if self.quantize else ""
        form = "" if self.form == "lora" else f"{self.form} "
        return f"{form}adapter of rank {self.rank}, alpha {self.alpha:g}{rooted}, on {targets}{whole}{start}"
