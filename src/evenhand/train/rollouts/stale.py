"""Rollouts that older weights sampled: how far they are from the policy that learns from them, and what the clip is around.

With `w_t = exp(old_logp - behaviour_logp)`, the probability of a token by the policy that begins to learn over that by the policy
that sampled, the mean of `w_t` is 1 up to noise whatever the distance is: the sampler's expectation of it is. What tells the
distance is how uneven the weights are, and the KL.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from evenhand.core import kl, policy
from evenhand.core.corrections import effective_share
from evenhand.objectives import PolicyGradient, part_of
from evenhand.objectives.surrogates import SURROGATES
from evenhand.protocols import Objective
from evenhand.train.examples import Example
from evenhand.train.policies import GENERATOR
from evenhand.train.rollouts.reader import as_sampled

AGE = "staleness"
"""The metric of a step: how many optimizer steps older than its own the weights are that sampled what it learns from."""


def age(examples: Sequence[Example], step: int) -> dict[str, float]:
    """The mean over the groups of optimizer step `step` (from 0); nothing where no group says who sampled it."""
    versions = [v for e in examples if (v := e.tokens.group.policy_version) is not None]
    return {AGE: step - sum(versions) / len(versions)} if versions else {}


def stale_metrics(examples: Sequence[Example], objective: Objective, proximal: str) -> dict[str, float]:
    """Of a rollout at the first update on it, over all sampled tokens: the mean importance weight, the effective share of the
    tokens `(sum w)^2 / (n sum w^2)`, the KL of the sampler to the policy (k3, nats per token), and, where the objective bounds
    weights or the clip is around the sampler, the share of the tokens that this cuts.

    `old_logp` of the examples are the policy's own.
    """
    old, behaviour, mask = _columns(examples)
    if not mask.any():
        return {}
    weight = policy.ratio(old, behaviour)[mask]
    cut = _cut(objective, old, behaviour, mask, proximal)
    return {
        "staleness/importance": float(weight.mean()),
        "staleness/effective": float(effective_share(weight)),
        "staleness/kl": float(kl.k3(behaviour, old)[mask].mean()),
        **({} if cut is None else {"staleness/clipped": float(cut[mask].float().mean())}),
    }


def by_sampler(example: Example, field: str) -> Example:
    """The example with the sampler's log-probs in a field, where a method means by it the policy that sampled."""
    return replace(example, per_token={**example.per_token, field: as_sampled(example)})


def _columns(examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs by the policy and by the sampler [N, C], and True on tokens that were sampled; none of the data's own answers."""
    rows = [
        (old, torch.tensor(c.behaviour_logp), torch.tensor(c.mask))
        for e in examples
        for old, c in zip(e.per_token["old_logp"], e.tokens.completions, strict=True)
        if c.behaviour_logp is not None
    ]
    if not rows:
        return torch.zeros(0, 0), torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.bool)
    old, behaviour, mask = (pad_sequence(list(column), batch_first=True) for column in zip(*rows, strict=True))
    return old, behaviour, mask


def _cut(objective: Objective, old: Tensor, behaviour: Tensor, mask: Tensor, proximal: str) -> Tensor | None:
    """True on tokens whose weight is not their own [N, C]; None where nothing bounds weights."""
    gradient = part_of(objective, PolicyGradient)
    if gradient is None:
        return None
    if gradient.importance:
        free = gradient.importance_weight(old, behaviour, mask, low=0.0, high=math.inf)
        bounded = gradient.importance_weight(old, behaviour, mask, low=gradient.importance_low, high=gradient.importance)
        return (free != bounded).expand_as(mask)
    if proximal == GENERATOR and SURROGATES[gradient.surrogate].clips_tokens:
        ratio = policy.ratio(old, behaviour)
        return (ratio < 1 - gradient.parameters["low"]) | (ratio > 1 + gradient.parameters["high"])
    return None
