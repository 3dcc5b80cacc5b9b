"""The stage functions by kind. Light to import: a stage's module is loaded when it runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from evenhand.protocols import Stage

VERSIONS: dict[str, int] = {
    "data": 1,
    "validation_split": 1,
    "base": 1,
    "pretrained_reward_model": 1,
    "fit": 4,
    "reference": 2,
    "annotate": 2,
    "revise": 1,
    "generate": 2,
    "judge": 3,
    "judge_self_test": 1,
    "evaluate_reward_model": 3,
    "sample_rewards": 2,
    "frontier": 2,
}
"""Raised whenever a stage's result changes for the same spec: old artifacts are then no longer found."""


def _run(
    kind: str, spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]
) -> None:
    importlib.import_module(f"evenhand.stages.{kind}").run(spec, seed, inputs, out, report)


STAGES: dict[str, Stage] = {kind: partial(_run, kind) for kind in VERSIONS}
