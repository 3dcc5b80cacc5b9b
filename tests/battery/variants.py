"""Settings of registered methods that run other code than their defaults: they enter the battery and the golden curves too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from evenhand import methods
from evenhand.methods import Method
from evenhand.objectives.pairwise import PAIR_LOSSES, Pairwise

VARIANTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "reinforce_value": ("reinforce", {"baseline": "value"}),
    "reinforce_corrected": ("reinforce", {"importance": 2.0}),
    "ppo_critic": ("ppo", {"critic": "separate"}),
    "ppo_dual_clip": ("ppo", {"dual_clip": 1.5, "bootstrap_truncated": True}),
    "ppo_exact_kl": ("ppo", {"kl_estimator": "exact"}),
    "rank_entropy": ("rank_advantage", {"entropy": 0.01}),
    "rloo_exact_kl": ("rloo", {"kl_estimator": "exact"}),
    "rloo_k3": ("rloo", {"kl_estimator": "k3"}),
    "grpo_exact_kl": ("grpo", {"kl_estimator": "exact"}),
    "grpo_masked": ("grpo", {"mask_truncated": True, "dual_clip": 3.0, "updates": 2}),
    "grpo_rank": ("grpo", {"advantage": "rank", "kl": 0.05, "kl_in": "reward", "kl_estimator": "k1", "updates": 2}),
    "cispo_k3_ratio": ("cispo", {"kl": 0.05, "kl_estimator": "k3_ratio", "updates": 2}),
    "rloo_twice": ("rloo", {"updates": 2, "epochs": 2, "kl_in": "loss", "kl_estimator": "k2"}),
    "gspo_corrected": ("gspo", {"entropy": 0.01, "importance": 2.0}),
    "dapo_mask_tokens": ("dapo", {"importance": 5.0, "importance_low": 0.5, "correction": "mask_tokens", "updates": 2}),
    "grpo_mask_geometric": ("grpo", {"importance": 1.5, "importance_low": 0.5, "correction": "mask_geometric", "updates": 2}),
    "grpo_off_policy_mask": ("grpo", {"off_policy_mask": 0.01, "updates": 4, "kl": 0.0}),
    "dppo_kl": ("dppo", {"distance": "kl", "low": 0.05, "high": 0.05}),
    "cispo_corrected": ("cispo", {"entropy": 0.01, "importance": 2.0}),
    "dpo_scaled": ("dpo", {"temperature": 0.5}),
    "iterative_dpo_random": ("iterative_dpo", {"pairs": "best_vs_random"}),
    "iterative_dpo_rejection": ("iterative_dpo", {"pairs": "rejection"}),
    "iterative_dpo_anew": ("iterative_dpo", {"initialise": "start", "accumulate": True, "partner": "previous"}),
    "grpo_renewed": ("grpo", {"updates": 4, "renew": 2, "importance": 1e9, "kl": 0.0}),
    "tpo_mean": ("tpo", {"per": "mean", "beta": 2.0}),
    "dro_head": ("dro", {"critic": "head"}),
    "on_policy_distillation_early": ("on_policy_distillation", {"early": 0.5}),
    "raft_masked": ("raft", {"mask_truncated": True}),
}


def build(name: str, parameters: Mapping[str, Any] | None = None, *, steps: int, max_tokens: int) -> Method:
    """A registered method or a variant of one."""
    method, settings = VARIANTS.get(name, (name, {}))
    return methods.build(method, {**settings, **(parameters or {})}, steps=steps, max_tokens=max_tokens)


def _way(method: Method) -> tuple[Any, ...] | None:
    """What a loss of pairs is fed, on its way from data to terms; None where an objective is more than a pure loss."""
    if type(method.objective) is not Pairwise or method.rollouts is not None:
        return None
    loss = PAIR_LOSSES[method.objective.loss]
    return loss.per, loss.reference, loss.fields, method.data, method.reference, method.reference_update


def _repeated() -> frozenset[str]:
    first: dict[tuple[Any, ...], str] = {}
    ways = {name: _way(build(name, steps=6, max_tokens=8)) for name in methods.METHODS}
    return frozenset(name for name, way in ways.items() if way is not None and first.setdefault(way, name) != name)


REPEATED = _repeated()
"""Pair losses that only their pure function tells from an earlier method: `tests/core` has that, the slow lane the rest."""


def lanes(names: Iterable[str]) -> list[Any]:
    """Parameters of a test of every method; what repeats another one's way is in the slow lane."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in REPEATED else name for name in names]
