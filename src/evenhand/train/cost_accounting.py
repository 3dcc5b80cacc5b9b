"""What a run spent: tokens, reward calls, floating-point operations, and seconds by phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from evenhand.models.backbone import Trunk
from evenhand.train import flops
from evenhand.train.ranks import Ranks, idle, summed

LABELS = {"step": "train", "score": "reward"}
"""What the passes of a phase are called where nothing nearer says so."""
INSIDE_STEPS = ("generate", "score", "reference")
"""Phases that lie within that of steps."""
NOT_THE_METHOD = ("load", "save", "watch")
"""Phases whose operations are no part of what a method costs: they are not counted."""
_Model = TypeVar("_Model", bound=Trunk)


@dataclass
class Ledger:
    """Counts are reproducible; `seconds` are not, and live nowhere else.

    `flops_by_phase` has the operations of every pass of every network that `counts` was told of, forward and backward, by what
    it was for: train, generate, recompute (the trainer's own log-probs and values), reference, reward, validate. Where several
    ranks train, each one's ledger has the operations that it did, and `together` those of all.
    """

    tokens_generated: int = 0
    tokens_trained: int = 0
    reward_calls: int = 0
    flops_by_phase: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    within: list[str] = field(default_factory=list, repr=False)
    """What is being done, the innermost last."""

    @property
    def flops(self) -> float:
        """All operations."""
        return sum(self.flops_by_phase.values())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time inside to `seconds[name]`."""
        start = time.perf_counter()
        try:
            with self.passes(LABELS.get(name, name)):
                yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    @contextmanager
    def passes(self, purpose: str) -> Iterator[None]:
        """Passes inside are for this purpose."""
        self.within.append(purpose)
        try:
            yield
        finally:
            self.within.pop()

    def spend(self, operations: float) -> None:
        """Operations for what is being done."""
        purpose = self.within[-1] if self.within else "other"
        if not set(NOT_THE_METHOD) & set(self.within):
            self.flops_by_phase[purpose] += operations

    def counts(self, model: _Model) -> _Model:
        """The same network, every pass of which is counted from now on; one that keeps gradients with its backward pass."""
        shape = flops.shape_of(model)

        def spend(_: Trunk, given: tuple[Any, ...]) -> None:
            if idle():
                return
            batch, reads = given
            learns = torch.is_grad_enabled() and shape.learning + shape.head_learning > 0
            shown = None if batch.shown is None else batch.shown.layout
            self.spend(flops.of_pass(model, shape, batch.layout, reads, learns=learns, shown=shown))

        model.register_forward_pre_hook(spend)
        return model

    def of(self, ranks: Ranks) -> Ledger:
        """The first rank goes on from what was counted; the others count what they add to it."""
        return self if ranks.first else replace(self, flops_by_phase=defaultdict(float))

    def together(self, ranks: Ranks) -> Ledger:
        """What all ranks have spent, with the first one's clock; asked of every rank at once."""
        return replace(self, flops_by_phase=summed(ranks, self.flops_by_phase)) if ranks.size > 1 else self

    def as_dict(self) -> dict[str, Any]:
        return {
            "tokens_generated": self.tokens_generated,
            "tokens_trained": self.tokens_trained,
            "reward_calls": self.reward_calls,
            "flops": self.flops,
            "flops_by_phase": dict(sorted(self.flops_by_phase.items())),
            "seconds": {k: round(v, 3) for k, v in sorted(self.seconds.items())},
        }

    def closed(self) -> dict[str, Any]:
        """As a finished run says it: the time of steps less that of phases inside them is that of training.

        >>> Ledger(seconds={"step": 9.0, "generate": 4.0, "score": 2.0, "save": 1.0}).closed()["seconds"]
        {'generate': 4.0, 'save': 1.0, 'score': 2.0, 'train': 3.0}
        """
        spent = self.as_dict()
        seconds = spent["seconds"]
        train = seconds.pop("step", 0.0) - sum(seconds.get(phase, 0.0) for phase in INSIDE_STEPS)
        return {**spent, "seconds": {**seconds, "train": round(train, 3)}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ledger:
        counts = {name: data[name] for name in ("tokens_generated", "tokens_trained", "reward_calls")}
        by_phase = defaultdict(float, data["flops_by_phase"])
        return cls(**counts, flops_by_phase=by_phase, seconds=defaultdict(float, data["seconds"]))
