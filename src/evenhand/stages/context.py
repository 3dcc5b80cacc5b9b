"""What every stage is given beside its spec, and the part of a spec that all stages which open models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from evenhand.train.config import Lengths


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
    bar; it never changes a result.
    """

    seed: int
    inputs: Mapping[str, Path]
    out: Path
    report: Callable[..., None] = unreported


class Stage(Protocol):
    """The function `run` of a stage's module."""

    def __call__(self, spec: Any, context: StageContext) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """On what a stage computes. All of it shows in the result's bytes, so it is resolved before a key is made: never "auto"."""

    device: str
    """The kind: "cpu" or "cuda"."""
    dtype: str
    threads: int = 1
    matmul: Literal["float32", "bfloat16"] | None = None
    world_size: int = 1
    engine: str = "local"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """How a stage opens models and cuts what they read. `template` is the chat template where a tokenizer brings none."""

    compute: Compute
    lengths: Lengths
    template: str | None = None
    tokens_per_microbatch: int = 8192
    """Of passes without gradients."""
