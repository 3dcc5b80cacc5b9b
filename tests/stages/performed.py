"""A stage of a plan, run in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evenhand.stages import STAGES
from evenhand.stages.context import StageContext, unreported
from evenhand.stages.setup import Compute, Setup
from evenhand.train.config import Lengths


def perform(
    kind: str, spec: Any, inputs: Mapping[str, Path], out: Path, *, seed: int = 0, report: Callable[..., None] = unreported
) -> Path:
    """The stage's artifact, in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    STAGES[kind](spec, StageContext(seed=seed, inputs=inputs, out=out, report=report))
    return out


def setup(prompt: int = 32, completion: int = 12, *, dtype: str = "float32", **named: Any) -> Setup:
    """How a stage opens models in these tests."""
    return Setup(compute=Compute(device="cpu", dtype=dtype), lengths=Lengths(prompt=prompt, completion=completion), **named)
