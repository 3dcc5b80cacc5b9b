"""Surrogates by name: what a policy gradient minimises of a token's or an answer's log-probs and its advantage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from evenhand.core import policy, surrogates
from evenhand.objectives.parts import masked_sum
from evenhand.registry import Registry
from evenhand.types import Need

F = TypeVar("F", bound=Callable[..., Tensor])


@dataclass(frozen=True, slots=True)
class SurrogateInput:
    """What a surrogate sees: log-probs [N, C] (current, at the rollout's weights, as sampled), advantage, mask, and the tokens
    that were chosen from the whole step, where it chooses any; `given` [N, 1] True for answers that the data wrote."""

    logp: Tensor
    old_logp: Tensor
    behaviour_logp: Tensor
    advantage: Tensor
    mask: Tensor
    chosen: Tensor
    given: Tensor


def _per_sequence(advantage: Tensor) -> Tensor:
    """[N, 1] -> [N]; a token-level advantage has no meaning for a surrogate of whole completions."""
    if advantage.shape[-1] != 1:
        raise ValueError(f"a sequence surrogate needs one advantage per completion, got {list(advantage.shape)}")
    return advantage[:, 0]


@dataclass(frozen=True, slots=True)
class Surrogate:
    """`per_sequence` surrogates return one value per completion ([N, 1]); the reduction then counts completions.

    `clips_tokens` says that a token's ratio has no gradient outside [1 - low, 1 + high]. `choose(logp, advantage, uniform,
    **parameters)` picks tokens of a whole step, all [T], for `Step.chosen`; `uniform` are random numbers in [0, 1).
    """

    function: Callable[..., Tensor]
    per_sequence: bool = False
    clips_tokens: bool = False
    needs: frozenset[Need] = frozenset()
    choose: Callable[..., Tensor] | None = None


SURROGATES = Registry[Surrogate]("surrogate")
OLD = frozenset({Need.OLD_LOGP})
SAMPLED = frozenset({Need.BEHAVIOUR_LOGP})
MIXED = frozenset({Need.OLD_LOGP, Need.GIVEN})


def surrogate(
    name: str = "",
    *,
    per_sequence: bool = False,
    clips_tokens: bool = False,
    needs: frozenset[Need] = frozenset(),
    choose: Callable[..., Tensor] | None = None,
) -> Callable[[F], F]:
    """Decorator: the function below turns a `SurrogateInput` and its own parameters into a surrogate loss [N, C] (or [N, 1])."""

    def add(function: F) -> F:
        found = Surrogate(function, per_sequence=per_sequence, clips_tokens=clips_tokens, needs=needs, choose=choose)
        SURROGATES.register(name or function.__name__)(found)
        return function

    return add


def _given(function: Callable[..., Tensor], *fields: str) -> Callable[..., Tensor]:
    """A function of `core` that is given these fields of a `SurrogateInput`, and its own parameters."""
    return lambda s, **parameters: function(*(getattr(s, field) for field in fields), **parameters)


MOVED = ("logp", "old_logp", "advantage")
surrogate("reinforce")(_given(policy.reinforce, "logp", "advantage"))
surrogate("clipped", clips_tokens=True, needs=OLD)(_given(policy.clipped, *MOVED))
surrogate("dual_clipped", clips_tokens=True, needs=OLD)(_given(policy.dual_clipped, *MOVED))
surrogate("gspo", needs=OLD)(_given(policy.gspo, *MOVED, "mask"))
surrogate("cispo", needs=OLD)(_given(policy.cispo, *MOVED))
surrogate("gmpo", needs=OLD)(_given(surrogates.gmpo, *MOVED, "mask"))
surrogate("sapo", needs=OLD)(_given(surrogates.sapo, *MOVED))
surrogate("vespo", needs=OLD)(_given(surrogates.vespo, *MOVED, "mask"))
surrogate("dppo", needs=SAMPLED)(_given(surrogates.dppo, "logp", "behaviour_logp", "advantage"))
surrogate("dppo_kl", needs=SAMPLED)(_given(surrogates.dppo_kl, "logp", "behaviour_logp", "advantage"))
surrogate("mixed_policy", needs=MIXED)(_given(surrogates.mixed_policy, *MOVED, "given"))


@surrogate("sequence_clipped", per_sequence=True, needs=OLD)
def _sequence_clipped(s: SurrogateInput, **p: float) -> Tensor:
    return policy.sequence_clipped(s.logp, s.old_logp, _per_sequence(s.advantage), s.mask, **p)[:, None]


@surrogate("topr", per_sequence=True, needs=SAMPLED)
def _topr(s: SurrogateInput, **p: float) -> Tensor:
    logp, behaviour = masked_sum(s.logp, s.mask), masked_sum(s.behaviour_logp, s.mask)
    return policy.topr(logp, behaviour, _per_sequence(s.advantage), **p)[:, None]


def _covariance_between(logp: Tensor, advantage: Tensor, uniform: Tensor, **p: float) -> Tensor:
    """A random `share` of all tokens, at least one, of those whose covariance lies between `least` and `most`."""
    found = surrogates.covariance(logp, advantage)
    eligible = (found > p["least"]) & (found < p["most"])
    order = torch.where(eligible, -uniform.to(logp.dtype), -torch.inf)
    return surrogates.largest(order, p["share"]) & eligible


def _largest_covariance(logp: Tensor, advantage: Tensor, uniform: Tensor, **p: float) -> Tensor:
    return surrogates.largest(surrogates.covariance(logp, advantage), p["share"])


@surrogate("clip_cov", needs=OLD, clips_tokens=True, choose=_covariance_between)
def _clip_cov(s: SurrogateInput, *, low: float, high: float, **chosen_by: float) -> Tensor:
    return surrogates.clip_cov(s.logp, s.old_logp, s.advantage, s.chosen, low=low, high=high)


@surrogate("kl_cov", needs=OLD, choose=_largest_covariance)
def _kl_cov(s: SurrogateInput, *, penalty: float, **chosen_by: float) -> Tensor:
    return surrogates.kl_cov(s.logp, s.old_logp, s.advantage, s.chosen, penalty=penalty)
