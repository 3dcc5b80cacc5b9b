"""Judges by name: what a user adds to the programs and language models that are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evenhand.judges.verdict import Judge
from evenhand.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeContext:
    """What a judge may use: the device of this stage, and a folder beside the artifacts for what it wants to keep."""

    device: str = "cpu"
    folder: Path = Path()


JUDGES = Registry[Callable[..., Judge]]("judge")
"""Kind -> `builder(context, **settings)`; the builder's signature is the schema."""
judge = JUDGES.register
"""Decorator: the builder below makes the judge of that kind."""
