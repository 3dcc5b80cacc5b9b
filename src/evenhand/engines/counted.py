"""An engine whose work is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evenhand.protocols import Engine
from evenhand.types import Group, Prompt, Sampling


@dataclass(frozen=True)
class Counted:
    """`engine`, and `sampled(groups, max_prompt)` is told of everything it sampled."""

    engine: Engine
    sampled: Callable[[Sequence[Group], int | None], None]

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling | Sequence[Sampling],
        *,
        max_prompt: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Group]:
        """See `evenhand.protocols.Engine`."""
        groups = self.engine.generate(prompts, n, sampling, max_prompt=max_prompt, progress=progress)
        self.sampled(groups, max_prompt)
        return groups
