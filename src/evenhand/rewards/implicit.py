"""A policy as a reward model: what its log-probs say about an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evenhand.train.examples import Example
from evenhand.train.logprobs import Rows, read, total
from evenhand.types import Group, Head, Scores

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.models.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReward:
    """`beta * (log pi(y | x) - log pi_ref(y | x))`, summed over tokens, nats; `beta * log pi(y | x)` without a reference.

    The first is what DPO's loss calls the reward, the second the local reward of "All Roads Lead to Likelihood" (appendix A.5):
    the same thing against a reference that gives every answer probability 1. `parts` hold `logp` and, if any, `ref_logp`.
    `temperature` divides the logits of both, as in training. Lengths in tokens; no gradient. `earned` is the same token by token:
    the process reward of an implicit model (PRIME, arXiv:2502.01456), which credits per token make use of.
    """

    policy: Policy
    renderer: Renderer
    beta: float
    reference: Policy | None = None
    max_prompt: int | None = None
    max_completion: int | None = None
    tokens_per_microbatch: int = 8192
    temperature: float = 1.0

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        cut = partial(self.renderer.tokenise, max_prompt=self.max_prompt, max_completion=self.max_completion)
        items = [Example(tokens=cut(g)) for g in groups]
        own = self._rows(self.policy, items)
        ref = self._rows(self.reference, items) if self.reference is not None else None
        return [self._scores(item, own[n], ref[n] if ref else None) for n, item in enumerate(items)]

    def unscaled(self) -> PolicyReward:
        """As it is: log-ratios are what was learned."""
        return self

    def roomy(self) -> PolicyReward:
        """See `protocols.TrainedReward`."""
        return self if self.max_completion is None else replace(self, max_completion=2 * self.max_completion)

    def _scores(self, item: Example, own: tuple[Tensor, ...], ref: tuple[Tensor, ...] | None) -> Scores:
        masks = [tokens.mask for tokens in item.tokens.completions]
        sums = tuple(total(row, mask) for row, mask in zip(own, masks, strict=True))
        if ref is None:
            return Scores(tuple(self.beta * s for s in sums), {"logp": sums}, self._earned(own, masks))
        against = tuple(total(row, mask) for row, mask in zip(ref, masks, strict=True))
        values = tuple(self.beta * (s - r) for s, r in zip(sums, against, strict=True))
        ratio = [a - b for a, b in zip(own, ref, strict=True)]
        return Scores(values, {"logp": sums, "ref_logp": against}, self._earned(ratio, masks))

    def _earned(self, rows: Sequence[Tensor], masks: Sequence[Sequence[bool]]) -> tuple[tuple[float, ...], ...]:
        counted = zip(rows, masks, strict=True)
        return tuple(tuple((self.beta * row * torch.tensor(mask)).tolist()) for row, mask in counted)

    def _rows(self, policy: Policy, items: Sequence[Example]) -> Rows:
        return read(
            policy, items, frozenset({Head.LOGP}), tokens_per_microbatch=self.tokens_per_microbatch,
            temperature=self.temperature, device=policy.device,
        )[Head.LOGP]  # fmt: skip
