"""The part of a spec that all stages which open models share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from evenhand.train.config import Lengths


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """On what a stage computes. All of it shows in the result's bytes, so it is resolved before a key is made: never "auto"."""

    device: str
    """The kind: "cpu" or "cuda"."""
    dtype: str
    threads: int = 1
    matmul: Literal["float32", "bfloat16"] | None = None
    world_size: int = 1
    """Processes that train one network together; `shard` says how they hold its weights."""
    shard: Literal["ddp", "fsdp"] = "ddp"
    engine: str | Mapping[str, Any] = "local"
    """What of the sampler's settings decides what it answers."""
    engine_access: Mapping[str, Any] = field(default_factory=dict, metadata={"decides": False})
    """The rest of them: an address, limits of time."""

    @property
    def sampler(self) -> str | Mapping[str, Any]:
        """The sampler's settings, as `engines.registry.open_engine` takes them."""
        own = {"kind": self.engine} if isinstance(self.engine, str) else self.engine
        return {**own, **self.engine_access} if self.engine_access else self.engine


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """How a stage opens models and cuts what they read. `template` is the chat template where a tokenizer brings none."""

    compute: Compute
    lengths: Lengths
    template: str | None = None
    tokens_per_microbatch: int = 8192
    """Of passes without gradients."""
