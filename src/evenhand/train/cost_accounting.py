"""What a run spent: tokens, reward calls, floating-point operations, and seconds by phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Ledger:
    """Counts are reproducible; `seconds` are not, and live nowhere else.

    `flops` is the usual estimate: 2 per parameter and token forward, 6 forward and backward.
    """

    tokens_generated: int = 0
    tokens_trained: int = 0
    reward_calls: int = 0
    flops: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time inside to `seconds[name]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def as_dict(self) -> dict[str, Any]:
        return {
            "tokens_generated": self.tokens_generated,
            "tokens_trained": self.tokens_trained,
            "reward_calls": self.reward_calls,
            "flops": self.flops,
            "seconds": {k: round(v, 3) for k, v in sorted(self.seconds.items())},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ledger:
        seconds: dict[str, float] = defaultdict(float, data["seconds"])
        return cls(**{k: v for k, v in data.items() if k != "seconds"}, seconds=seconds)
