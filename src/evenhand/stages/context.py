"""What every stage is given beside its spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from evenhand.train.ranks import ONE, Ranks


class StageSpec(Protocol):
    """A frozen dataclass that, with seed and inputs, determines a stage's result. See `store.fingerprint.decisive`."""

    KIND: ClassVar[str]
    """The stage's module in `evenhand.stages`."""
    VERSION: ClassVar[int]
    """Raised whenever the result changes for the same spec: old artifacts are then no longer found."""


def unreported(done: float, total: float, **shown: Any) -> None:
    """Nobody watches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageContext:
    """The finished artifacts `inputs` by role, and the folder `out` for the stage's own.

    `out` survives a kill: a stage finds its own checkpoint there and goes on. `report(done, total, **shown)` moves the progress
    bar; it never changes a result. Where several `ranks` run the stage together, the first one's `out` is the artifact, and what
    another writes is thrown away. `lock` is the descriptor of the lock on `out`: who writes there holds it, or a duplicate of it.
    """

    seed: int
    inputs: Mapping[str, Path]
    out: Path
    report: Callable[..., None] = unreported
    ranks: Ranks = ONE
    lock: int | None = None
