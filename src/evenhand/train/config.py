"""What an experiment file says about one training run: budget and optimizer, sampling, lengths. Read as it is by the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from evenhand.models.adapter_config import Adapter
from evenhand.types import Sampling


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Budget and optimizer. `keep_checkpoint: best` measures by the arm's reward, or by its loss where it has none."""

    steps: int | None = None
    """Optimizer steps; in place of `epochs`."""
    epochs: float | None = None
    """Passes over the training rows; in place of `steps`."""
    prompts_per_step: int = 32
    """Prompts (rows) of one optimizer step, whatever their lengths."""
    learning_rate: float | None = None
    """Peak learning rate; by default the method's own, ten times that for an adapter."""
    schedule: str = "cosine"
    """How the learning rate falls after the warm-up: cosine, linear, constant, inverse_sqrt or step."""
    schedule_parameters: Mapping[str, float] = field(default_factory=dict)
    """What the schedule takes, such as {factor: 0.5, every: 100} of `step`."""
    warmup: float = 0.03
    """Share of the steps in which the learning rate rises."""
    optimizer: Literal["adamw", "adamw_8bit"] = field(
        default="adamw", metadata={"revision": lambda name: int(name == "adamw_8bit")}
    )
    """AdamW, or AdamW whose moments take two bytes a weight in place of eight (docs/scaling.md): bfloat16 weights are rounded by
    chance then, without a copy in float32."""
    weight_decay: float = 0.0
    """AdamW's, decoupled."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moving averages of the gradient and of its square."""
    eps: float = 1e-8
    """AdamW's; added to the root of the second."""
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    tokens_per_microbatch: int = 8192
    """What is computed at once: lower it where memory is short, the result stays the same. In tokens."""
    on_memory: Literal["stop", "smaller"] = field(default="stop", metadata={"decides": False})
    """Where a micro-batch does not fit: stop, and say what would, or go on with smaller ones (halved until one fits)."""
    gradient_checkpointing: bool = False
    """Whether activations are computed twice to save memory; the result stays the same."""
    checkpoint_every: int = field(default=50, metadata={"decides": False})
    """Steps between two checkpoints that a stopped run goes on from, fewer where they take minutes; 0 is never."""
    evaluate_every: int = 0
    """Steps between two looks at the held-out loss; 0 is never."""
    sample_every: int = 0
    """Steps between two looks at sampled answers; 0 is never."""
    keep_checkpoint: Literal["last", "best"] = field(default="last", metadata={"revision": lambda which: int(which == "best")})
    """Which weights are the result: the last, or the best on validation prompts."""
    choose_by: Literal["loss", "accuracy", "margin"] = "loss"
    """What of the validation pairs `keep_checkpoint: best` goes by where no reward decides: loss, accuracy or margin."""
    validate_every: int = 0
    """Steps between two validations for `keep_checkpoint: best`; 0: after every round of a method with rounds."""
    validation_prompts: int = 64
    """Prompts that are taken out of training for `keep_checkpoint: best`."""
    snapshots: tuple[int, ...] | Literal["rounds"] = ()
    """Steps whose weights are kept and judged like arms; `rounds`: after every round of a method with rounds."""
    stop_when: Mapping[str, float] = field(default_factory=dict)
    """Rules of docs/monitoring.md that end training, with their limits, such as {kl: 50}."""
    router_loss: float | None = None
    """Weight of the loss that serves all experts of a mixture alike; by default as the model's config says, 0 is off."""
    adapter: Adapter | None = None
    """Train a low-rank change of some layers instead of all weights: docs/adapters.md."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceUpdate:
    """How a reference follows the policy: `ref <- mix * policy + (1 - mix) * ref` after every `every` steps (TR-DPO)."""

    every: int
    """Optimizer steps between two updates of the reference."""
    mix: float = 1.0
    """The policy's share of the new reference: 1 copies it (a hard update)."""

    def due(self, index: int) -> bool:
        """Whether the reference moves before optimizer step `index`, from 0."""
        return bool(index) and index % self.every == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Staleness:
    """How old the weights are that sample: a rollout whose first optimizer step is t (from 0) is sampled from the weights after
    `max(0, t - steps)` steps, always, by schedule and not by a race (AReaL, arXiv:2505.24298; verl's one-step-off is 1)."""

    steps: int
    """Optimizer steps between the weights that sample a rollout and those that first learn from it; 0 is on-policy."""
    proximal: Literal["last", "generator"] = field(default="last", metadata={"revision": lambda which: int(which == "generator")})
    """What a clip is around: the last policy (decoupled PPO; `importance` corrects), or the generator, which sampled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How completions are sampled."""

    temperature: float = 1.0
    """Divides the logits; 0 is greedy."""
    top_p: float = 1.0
    """Share of the probability that is sampled from; 1 is off."""
    top_k: int = 0
    """Likeliest tokens that are sampled from; 0 is off."""
    min_p: float = 0.0
    """Tokens below this share of the likeliest's probability are never drawn; 0 is off."""

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
    """Limits in tokens."""

    prompt: int = 512
    """Longest prompt; a longer one keeps its end. In tokens."""
    completion: int = 512
    """Longest completion; a longer one keeps its beginning. In tokens."""
