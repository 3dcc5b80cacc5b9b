"""Policy gradients that compare the answers to one prompt with each other: GRPO and what was made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evenhand.errors import UserError
from evenhand.methods.gradients import clip_surrogate, comparing, gradient, limited, masked, mismatch, renewed, whole_epochs
from evenhand.objectives import PolicyGradient
from evenhand.train.method import Method, method
from evenhand.train.rollouts import Exploration, LengthPenalty, Rollouts, Schedule, credits


def _group(
    surrogate: Mapping[str, Any], reduce: str, rollouts: Rollouts, *, kl: float, kl_estimator: str, kl_in: str, entropy: float,
    importance: float, mask_truncated: bool, truncated_in_baseline: bool, correction: str, importance_low: float,
    off_policy_mask: float,
) -> Method:  # fmt: skip
    """What all of these have: a KL, in the loss unless said, whose usual estimator has no place in a reward; an entropy bonus;
    how a sampler unlike the trainer is met, and what becomes of answers that the limit cut."""
    if kl and kl_in == "reward" and kl_estimator not in ("k1", "exact"):
        why = "detached in the reward, it does not have the gradient of a KL"
        raise UserError(f"{kl_estimator} belongs in the loss", where="kl_estimator", why=why, fix="use `kl_estimator: k1`")
    sampled = mismatch(importance, correction, importance_low, off_policy_mask)
    objective = PolicyGradient(**surrogate, reduce=reduce, entropy=entropy, importance=importance, **sampled)
    cut = replace(rollouts, truncation=masked(mask_truncated, truncated_in_baseline))
    return gradient(objective, cut, kl=kl, kl_estimator=kl_estimator, kl_in=kl_in)


@method(
    space={"kl": (0.0, 0.01, 0.04, 0.1)},
    of="rloo",
    differs="z-scores of the group, clipped ratio, KL in the loss",
    elsewhere={"TRL": "grpo", "OpenRLHF": "group_norm", "verl": "grpo", "study": "grpo"},
)
def grpo(
    *,
    completions_per_prompt: int = 8,
    kl: float = 0.04,
    kl_estimator: str = "k3",
    low: float = 0.2,
    high: float = 0.2,
    updates: int = 1,
    epochs: int = 1,
    entropy: float = 0.0,
    importance: float = 0.0,
    dual_clip: float = 0.0,
    mask_truncated: bool = False,
    kl_in: str = "loss",
    advantage: str = "standardise",
    truncated_in_baseline: bool = True,
    correction: str = "truncate",
    importance_low: float = 0.0,
    off_policy_mask: float = 0.0,
    renew: int = 0,
) -> Method:
    """Group-relative policy optimisation: z-scored rewards, token clip, k3 in the loss (Shao et al. 2024, arXiv:2402.03300).

    `entropy` weighs a bonus; `importance` caps the weight that corrects a sampler unlike the trainer (2 is usual); `dual_clip`
    bounds what a bad token may cost (3 is usual; INTELLECT-2's two-sided clip is 4); `mask_truncated` takes no loss on answers
    cut by the limit, whose rewards stay in the group's mean unless `truncated_in_baseline` is false. `advantage` puts another
    credit into the same surrogate: `standardise_population` (the deviation over G, not G - 1), `centre`, `leave_one_out`,
    `rank`. `kl_in: reward` takes the KL (`kl_estimator: k1`) off the reward.

    `correction` says how the sampler's mismatch is met, `importance` being the largest weight and `importance_low` the least:
    truncate (TIS), mask_tokens (IcePop, 0.5 to 5), truncate_sequence, mask_sequences (MIS, 3), mask_geometric (0.99 to 1.01 of an
    answer's geometric mean); with importance 1e9 it is decoupled PPO, whose proximal policy is the current one again after
    every `renew` updates. `off_policy_mask` leaves bad answers out that the policy
    has left by more nats per token (DeepSeek-V3.2; 0.5).
    Reduces to `reinforce` with z-scored rewards at ratio 1 and kl = 0, over mean token log-probs."""
    whole_epochs("grpo", updates, epochs)
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, credit=comparing(advantage, completions_per_prompt, where="grpo"),
        schedule=renewed("grpo", Schedule(updates, epochs, renew=renew), importance),
    )  # fmt: skip
    return _group(
        clip_surrogate(low, high, dual_clip), "sequence_mean", rollouts, kl=kl, kl_estimator=kl_estimator, kl_in=kl_in,
        entropy=entropy, importance=importance, correction=correction, importance_low=importance_low,
        off_policy_mask=off_policy_mask, mask_truncated=mask_truncated, truncated_in_baseline=truncated_in_baseline,
    )  # fmt: skip


@method(
    of="grpo", differs="no deviation, constant length", elsewhere={"TRL": "dr_grpo", "OpenRLHF": "dr_grpo", "verl": "dr_grpo"}
)
def dr_grpo(
    *,
    max_tokens: int,
    completions_per_prompt: int = 8,
    low: float = 0.2,
    high: float = 0.2,
    updates: int = 1,
    entropy: float = 0.0,
    importance: float = 0.0,
    mask_truncated: bool = False,
    kl: float = 0.0,
    kl_estimator: str = "k3",
    kl_in: str = "loss",
    truncated_in_baseline: bool = True,
    correction: str = "truncate",
    importance_low: float = 0.0,
    off_policy_mask: float = 0.0,
) -> Method:
    """GRPO without its biases: centred rewards, a constant length in the denominator (Liu et al. 2025, arXiv:2503.20783).
    Reduces to `rloo` without KL, times (G - 1) / (G L), on-policy."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=credits.centre, schedule=Schedule(updates))
    return _group(
        limited("clipped", low, high), f"constant:{max_tokens}", rollouts, kl=kl, kl_estimator=kl_estimator, kl_in=kl_in,
        entropy=entropy, importance=importance, correction=correction, importance_low=importance_low,
        off_policy_mask=off_policy_mask, mask_truncated=mask_truncated, truncated_in_baseline=truncated_in_baseline,
    )  # fmt: skip


@method(of="grpo", differs="every token alike, clip-higher, flat groups refilled", elsewhere={"TRL": "dapo", "verl": "dapo"})
def dapo(
    *,
    max_tokens: int,
    completions_per_prompt: int = 8,
    low: float = 0.2,
    high: float = 0.28,
    refill: int = 3,
    overlong: float = 0.2,
    mask_truncated: bool = False,
    updates: int = 1,
    entropy: float = 0.0,
    importance: float = 0.0,
    kl: float = 0.0,
    kl_estimator: str = "k3",
    kl_in: str = "loss",
    truncated_in_baseline: bool = True,
    correction: str = "truncate",
    importance_low: float = 0.0,
    off_policy_mask: float = 0.0,
) -> Method:
    """Clip-higher, token mean, flat groups refilled, soft penalty over the last `overlong` share of the limit
    (Yu et al. 2025, arXiv:2503.14476)."""
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, credit=credits.standardise, schedule=Schedule(updates),
        exploration=Exploration(refill=refill), shaping=LengthPenalty(limit=max_tokens, buffer=round(overlong * max_tokens)),
    )  # fmt: skip
    return _group(
        limited("clipped", low, high), "token_mean", rollouts, kl=kl, kl_estimator=kl_estimator, kl_in=kl_in,
        entropy=entropy, importance=importance, correction=correction, importance_low=importance_low,
        off_policy_mask=off_policy_mask, mask_truncated=mask_truncated, truncated_in_baseline=truncated_in_baseline,
    )  # fmt: skip


@method(
    of="grpo",
    differs="the ratio of the whole answer",
    elsewhere={"TRL": "gspo", "OpenRLHF": "gspo", "verl": "gspo", "study": "gspo"},
)
def gspo(
    *,
    completions_per_prompt: int = 8,
    low: float = 3e-4,
    high: float = 4e-4,
    updates: int = 4,
    entropy: float = 0.0,
    importance: float = 0.0,
    mask_truncated: bool = False,
    kl: float = 0.0,
    kl_estimator: str = "k3",
    kl_in: str = "loss",
    truncated_in_baseline: bool = True,
    correction: str = "truncate",
    importance_low: float = 0.0,
    off_policy_mask: float = 0.0,
) -> Method:
    """Group sequence policy optimisation: the geometric-mean ratio of the sequence, clipped (Zheng et al. 2025, eq. 5).

    `importance` weighs each token's share of the sequence's loss, by the token's own capped weight: a sequence's product of
    weights would vanish with its length, and its geometric mean is no importance weight.
    Reduces to `grpo` without KL for answers of one token."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=credits.standardise, schedule=Schedule(updates))
    return _group(
        limited("gspo", low, high), "sequence_mean", rollouts, kl=kl, kl_estimator=kl_estimator, kl_in=kl_in,
        entropy=entropy, importance=importance, correction=correction, importance_low=importance_low,
        off_policy_mask=off_policy_mask, mask_truncated=mask_truncated, truncated_in_baseline=truncated_in_baseline,
    )  # fmt: skip


@method(
    of="grpo",
    differs="the ratio as a detached, capped weight",
    elsewhere={"TRL": "~cispo, absolute cap", "verl": "cispo", "study": "~cispo, other caps"},
)
def cispo(
    *,
    completions_per_prompt: int = 8,
    low: float = 1.0,
    high: float = 4.0,
    updates: int = 4,
    entropy: float = 0.0,
    importance: float = 0.0,
    mask_truncated: bool = False,
    kl: float = 0.0,
    kl_estimator: str = "k3",
    kl_in: str = "loss",
    truncated_in_baseline: bool = True,
    correction: str = "truncate",
    importance_low: float = 0.0,
    off_policy_mask: float = 0.0,
) -> Method:
    """A clipped, detached importance weight, so that no token loses its gradient (MiniMax-M1 2025, arXiv:2506.13585).

    That weight corrects for the updates since the rollout; `importance` multiplies it with the sampler's own, capped.
    Reduces to the gradient of `dapo` on-policy."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=credits.standardise, schedule=Schedule(updates))
    return _group(
        limited("cispo", low, high), "token_mean", rollouts, kl=kl, kl_estimator=kl_estimator, kl_in=kl_in,
        entropy=entropy, importance=importance, correction=correction, importance_low=importance_low,
        off_policy_mask=off_policy_mask, mask_truncated=mask_truncated, truncated_in_baseline=truncated_in_baseline,
    )  # fmt: skip
