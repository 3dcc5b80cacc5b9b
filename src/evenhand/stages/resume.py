"""What of a training run goes into a checkpoint, and comes back from it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from evenhand.protocols import Source
from evenhand.stages.training_run import TrainingRun
from evenhand.stages.validate import Keeper
from evenhand.train import checkpoint, loop
from evenhand.train.cost_accounting import Ledger
from evenhand.train.monitor import Monitor

UNSAVED = 120.0
"""Seconds of one process's work that a stop may cost at most, about, where steps are slow."""
SHARE = 0.05
"""What writing checkpoints for that reason may cost, as a share of the time."""
MEMORY = "memory"
"""What the objective's statistics carry from step to step, as a set of tensors of a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A run and all that changes with its steps."""

    run: TrainingRun
    source: Source
    loop: loop.Loop
    keeper: Keeper | None
    monitor: Monitor


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The newest checkpoint in a stage's folder; `folder` is None where nothing was saved yet."""

    folder: Path | None = None
    state: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def newest(cls, out: Path) -> Saved:
        folder = checkpoint.latest(out)
        return cls() if folder is None else cls(folder=folder, state=json.loads((folder / "state.json").read_text()))

    @property
    def step(self) -> int:
        return self.state.get("step", 0)

    @property
    def kept(self) -> int:
        """The last step whose lines in the logs stay: none where nothing was saved, so that everything is written again."""
        return self.step if self.folder is not None else -1

    @property
    def ledger(self) -> Ledger:
        return Ledger.from_dict(self.state["ledger"]) if self.state else Ledger()


@dataclass(kw_only=True)
class Due:
    """When a checkpoint is written: every so many steps, and sooner where that many take minutes.

    Ranks have to agree on it, and clocks do not: they write by steps alone.
    """

    every: int
    alone: bool
    clock: Callable[[], float] = time.monotonic
    cost: float = 0.0
    last: float = 0.0

    def __post_init__(self) -> None:
        self.last = self.clock()

    def __call__(self, step: int) -> bool:
        late = self.alone and self.clock() - self.last > max(UNSAVED, self.cost / SHARE)
        return bool(self.every) and (step % self.every == 0 or late)

    @contextmanager
    def written(self) -> Iterator[None]:
        """Around the writing of one."""
        begun = self.clock()
        yield
        self.last = self.clock()
        self.cost = self.last - begun


def save(training: Training, out: Path, step: int) -> None:
    """Everything a resumed run needs, as of `step`."""
    keeper, state = training.keeper, {"source": training.source.state_dict(), "monitor": training.monitor.state_dict()}
    ranks = training.run.ranks
    state |= {"ledger": training.run.ledger.together(ranks).as_dict()} | (
        {"kept": keeper.best.as_json()} if keeper is not None else {}
    )
    checkpoint.save(
        out, step=step, model=training.run.model, optimizer=training.loop.optimizer, state=state, more=_beside(training),
        ranks=ranks,
    )  # fmt: skip


def _beside(training: Training) -> dict[str, dict[str, Tensor]]:
    """What a checkpoint holds beside policy and optimizer: networks that the source carries, and the best weights so far."""
    carried = {name: checkpoint.trained(network) for name, network in training.source.carried.items()}
    best = training.keeper.best.weights if training.keeper is not None else {}
    memory = training.run.memory
    return carried | ({"best": best} if best else {}) | ({MEMORY: memory} if memory else {})


def restore(training: Training, saved: Saved) -> None:
    """Put everything where the checkpoint left it; nothing where there is none."""
    if saved.folder is None:
        return
    checkpoint.load(saved.folder, model=training.run.model, optimizer=training.loop.optimizer)
    training.source.load_state_dict(saved.state["source"])
    for name, network in training.source.carried.items():
        known = checkpoint.tensors(saved.folder, name)
        for key, tensor in checkpoint.trained(network).items():
            tensor.copy_(known[key])
    training.run.memory.update({k: t.to(training.run.device) for k, t in checkpoint.tensors(saved.folder, MEMORY).items()})
    if training.keeper is not None:
        training.keeper.best.load(saved.state["kept"], checkpoint.tensors(saved.folder, "best"))
    if "monitor" in saved.state:
        training.monitor.load_state_dict(saved.state["monitor"])
