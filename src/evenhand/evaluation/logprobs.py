"""Policies as rewards: the log-prob of an answer, and its difference from a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from evenhand.data.foreign import readable
from evenhand.data.window import fitted, window_of
from evenhand.types import Group, Head, Scores

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.models.policy import Policy

Scorer = Callable[[Sequence[Group]], list[Scores]]


def log_probs(
    policy: Policy, renderer: Renderer, *, max_prompt: int | None = None, max_completion: int | None = None,
    tokens_per_microbatch: int = 8192,
) -> Scorer:  # fmt: skip
    """log pi(answer | prompt) in nats, summed over the answer's tokens (its stop token too); `per_token` is the mean.

    An answer that another tokenizer's policy sampled is rendered and tokenised anew.
    """

    def score(groups: Sequence[Group]) -> list[Scores]:
        from evenhand.train.examples import Example
        from evenhand.train.logprobs import read, total

        cut = partial(renderer.tokenise, max_prompt=max_prompt, max_completion=max_completion)
        window = window_of(policy.hf.config)
        items = [Example(tokens=fitted(cut(readable(group, renderer)), window, reader="policy")) for group in groups]
        rows = read(
            policy, items, frozenset({Head.LOGP}), tokens_per_microbatch=tokens_per_microbatch, temperature=1.0,
            device=policy.device,
        )  # fmt: skip
        scores = []
        for item, row in zip(items, rows[Head.LOGP], strict=True):
            masks = [c.mask for c in item.tokens.completions]
            sums = tuple(total(r, m) for r, m in zip(row, masks, strict=True))
            scores.append(Scores(sums, {"per_token": tuple(s / sum(m) for s, m in zip(sums, masks, strict=True))}))
        return scores

    return score


def implicit_reward(policy: Scorer, reference: Scorer, *, beta: float) -> Scorer:
    """DPO's reward beta (log pi - log pi_ref), up to a constant per prompt. Rafailov et al. 2023, eq. 5."""

    def score(groups: Sequence[Group]) -> list[Scores]:
        both = zip(policy(groups), reference(groups), strict=True)
        return [Scores(tuple(beta * (p - r) for p, r in zip(a.values, b.values, strict=True))) for a, b in both]

    return score


def scaled(scorer: Scorer, scale: float) -> Scorer:
    """A scorer's values times a constant: beta log pi is the reward of a method without a reference."""

    def score(groups: Sequence[Group]) -> list[Scores]:
        return [Scores(tuple(scale * v for v in s.values)) for s in scorer(groups)]

    return score
