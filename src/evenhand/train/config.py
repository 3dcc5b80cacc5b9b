"""What an experiment file says about one training run: budget and optimizer, sampling, lengths. Read as it is by the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from evenhand.models.adapter_config import Adapter
from evenhand.types import Sampling


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Budget and optimizer: `steps` or `epochs`; `learning_rate` defaults to the method's; `warmup` is a share of the steps.

    `keep` "best" takes the weights that did best on `validation_prompts` prompts, which are taken out of training, measured every
    `validate_every` steps (0: after every round of a method with rounds): by the arm's reward, or by its loss if it has none.
    `stop_when` ends training early where a rule of docs/monitoring.md passes the given limit: {kl: 50, entropy_below: 0.1}.
    `adapter` trains low-rank changes of some layers in place of all weights: docs/adapters.md.
    """

    steps: int | None = None
    epochs: float | None = None
    prompts_per_step: int = 32
    learning_rate: float | None = None
    schedule: str = "cosine"
    schedule_parameters: Mapping[str, float] = field(default_factory=dict)
    warmup: float = 0.03
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 1.0
    tokens_per_microbatch: int = 8192
    gradient_checkpointing: bool = False
    checkpoint_every: int = field(default=50, metadata={"decides": False})
    evaluate_every: int = 0
    sample_every: int = 0
    keep: Literal["last", "best"] = "last"
    validate_every: int = 0
    validation_prompts: int = 64
    stop_when: Mapping[str, float] = field(default_factory=dict)
    adapter: Adapter | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How completions are sampled. `temperature` 0 is greedy; `top_p` 1, `top_k` 0 and `min_p` 0 are off."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    @property
    def cuts(self) -> str:
        """How unlikely tokens are cut off, in words; empty where none are."""
        common = f"top-p {self.top_p:g}, top-k {self.top_k}" if self.top_p < 1 or self.top_k > 0 else ""
        return ", ".join(filter(None, [common, f"min-p {self.min_p:g}" if self.min_p else ""]))

    def sampler(self, max_tokens: int, *, seed: int = 0) -> Sampling:
        """What an engine is asked for."""
        return Sampling(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, min_p=self.min_p, max_tokens=max_tokens, seed=seed
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Limits in tokens. Prompts keep their end, completions their beginning."""

    prompt: int = 512
    completion: int = 512
