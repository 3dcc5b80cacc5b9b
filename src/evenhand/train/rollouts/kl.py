"""The KL in the reward: how it is estimated, what it costs, and how its coefficient adapts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evenhand.core import kl, kl_control
from evenhand.errors import one_of
from evenhand.train.examples import Example
from evenhand.train.logprobs import total
from evenhand.types import Head

Estimator = Callable[[Example], tuple[Tensor, ...]]
"""The KL to the reference at every token of each completion, nats."""


def of_logps(function: Callable[[Tensor, Tensor], Tensor]) -> Estimator:
    """An estimate from the log-probs of the sampled tokens alone."""
    return lambda e: tuple(function(old, ref) for old, ref in zip(e.per_token["old_logp"], e.per_token["ref_logp"], strict=True))


EXACT = "exact"
ESTIMATORS: dict[str, Estimator] = {
    "k1": of_logps(kl.k1), "k2": of_logps(kl.k2), "k3": of_logps(kl.k3), EXACT: lambda example: example.per_token["exact_kl"],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class KlPenalty:
    """`coefficient` times the KL is taken off the reward, before the baseline: per completion, or per token by a token credit.

    With a `target` (nats per completion) the coefficient follows the KL, over a `horizon` of completions (Ziegler et al. 2019).
    """

    coefficient: float = 0.0
    estimator: str = "k1"
    target: float = 0.0
    horizon: float = 10_000.0

    def __post_init__(self) -> None:
        one_of("kl_estimator", self.estimator, ESTIMATORS, where="rollouts")

    @property
    def reads(self) -> frozenset[Head]:
        """The exact KL is read from the policy, which then holds the reference beside it."""
        return frozenset({Head.KL}) if self.coefficient and self.estimator == EXACT else frozenset()

    def current(self, memory: dict[str, float]) -> float:
        return memory.get("kl_coefficient", self.coefficient)

    def adapt(self, memory: dict[str, float], observed: Tensor) -> None:
        """Move the coefficient after completions whose summed KL was `observed` [P, G]."""
        memory["kl_coefficient"] = kl_control.adaptive_kl(
            self.current(memory), float(observed.mean()), target=self.target, horizon=self.horizon, episodes=observed.numel()
        )


def sequence_kl(examples: Sequence[Example], estimator: str = "k1") -> Tensor:
    """The KL of each whole completion [P, G]: summed over its counted tokens, nats."""
    return torch.tensor([completion_kl(e, estimator) for e in examples])


def completion_kl(example: Example, estimator: str = "k1") -> list[float]:
    """The KL of each completion of one group."""
    rows = zip(ESTIMATORS[estimator](example), example.tokens.completions, strict=True)
    return [total(row, c.mask) for row, c in rows]
