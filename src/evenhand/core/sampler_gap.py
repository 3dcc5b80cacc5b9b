"""How far the log-probs that tokens were sampled with lie from the trainer's own: figures over all tokens of a rollout.

`old_logp` are the trainer's at the rollout's weights, `behaviour_logp` the sampler's, [T] each, in nats, over the tokens that
count; `w_t = exp(old_logp - behaviour_logp)` is what importance sampling would weigh a token by (`core.corrections`).
"""

from __future__ import annotations

from torch import Tensor


def mean_gap(old_logp: Tensor, behaviour_logp: Tensor) -> Tensor:
    """`mean_t |old_logp_t - behaviour_logp_t|`, nats."""
    return (old_logp - behaviour_logp).abs().mean()


def largest_gap(old_logp: Tensor, behaviour_logp: Tensor) -> Tensor:
    """`max_t |old_logp_t - behaviour_logp_t|`, nats."""
    return (old_logp - behaviour_logp).abs().max()


def beyond(old_logp: Tensor, behaviour_logp: Tensor, *, cap: float) -> Tensor:
    """The share of tokens with `w_t > cap`: those that truncated importance sampling cuts."""
    return ((old_logp - behaviour_logp).exp() > cap).to(old_logp.dtype).mean()
