"""A policy as a reward model: what its log-probs say about an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

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
    `temperature` divides the logits of both, as in training. Lengths in tokens; no gradient.
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
        own = self._sums(self.policy, items)
        ref = self._sums(self.reference, items) if self.reference is not None else None
        return [self._scores(own[n], ref[n] if ref else None) for n in range(len(items))]

    def _scores(self, own: tuple[float, ...], ref: tuple[float, ...] | None) -> Scores:
        if ref is None:
            return Scores(tuple(self.beta * s for s in own), {"logp": own})
        values = tuple(self.beta * (s - r) for s, r in zip(own, ref, strict=True))
        return Scores(values, {"logp": own, "ref_logp": ref})

    def _sums(self, policy: Policy, items: Sequence[Example]) -> list[tuple[float, ...]]:
        rows: Rows = read(
            policy, items, frozenset({Head.LOGP}), tokens_per_microbatch=self.tokens_per_microbatch,
            temperature=self.temperature, device=policy.device,
        )[Head.LOGP]  # fmt: skip
        pairs = (zip(row, item.tokens.completions, strict=True) for row, item in zip(rows, items, strict=True))
        return [tuple(total(logp, tokens.mask) for logp, tokens in pair) for pair in pairs]
