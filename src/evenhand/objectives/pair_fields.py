"""What a loss of pairs may be given beside the log-probs of both sides, by name: lengths, a rating gap, exact KLs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from evenhand.objectives.parts import lengths, masked_sum, present
from evenhand.types import Batch, Head, ModelOut, Need


def pair_weight(batch: Batch, dtype: torch.dtype) -> Tensor:
    """Weight per pair [B]; 1 when none is given."""
    if batch.pair_weight is not None:
        return batch.pair_weight.to(dtype)
    pairs = present(batch.pairs)
    return torch.ones(len(pairs), dtype=dtype, device=pairs.device)


def sides(values: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Values of the chosen and the rejected completion of every pair, [N, ...] -> [B, ...], [B, ...]."""
    pairs = present(batch.pairs)
    return values[pairs[:, 0]], values[pairs[:, 1]]


def per_completion(values: Tensor, batch: Batch, per: str) -> Tensor:
    """[N, C] -> [N] summed or averaged over counted tokens, or as it is with 0 where a token does not count (`token`)."""
    if per == "token":
        return torch.where(batch.completion_mask, values, values.new_zeros(()))
    total = masked_sum(values, batch.completion_mask)
    return total / lengths(batch.completion_mask) if per == "mean" else total


@dataclass(frozen=True, slots=True)
class PairField:
    """Keyword tensors for a pair loss, and what they are read off."""

    read: Callable[[ModelOut, Batch], dict[str, Tensor]]
    needs: frozenset[Need] = frozenset()
    reads: frozenset[Head] = frozenset()


def _of_both(name: str, values: Tensor, batch: Batch) -> dict[str, Tensor]:
    chosen, rejected = sides(values, batch)
    return {f"{name}_chosen": chosen, f"{name}_rejected": rejected}


def _old(out: ModelOut, batch: Batch) -> dict[str, Tensor]:
    """At the rollout's weights; the policy's own, without gradient, where it has not moved since."""
    old = present(out.logp).detach() if batch.old_logp is None else batch.old_logp
    return _of_both("old", masked_sum(old, batch.completion_mask), batch)


def _position_kl(out: ModelOut, batch: Batch) -> dict[str, Tensor]:
    return _of_both("kl", masked_sum(present(out.reference_kl), batch.completion_mask), batch)


def _alignment(out: ModelOut, batch: Batch) -> dict[str, Tensor]:
    """The mean over tokens of log p(token) less log sum p^2, of both answers together; no gradient."""
    own = (present(out.logp) - present(out.collision)).detach()
    chosen, rejected = sides(per_completion(own, batch, "mean"), batch)
    return {"alignment": chosen + rejected}


def _dispersion(out: ModelOut, batch: Batch) -> dict[str, Tensor]:
    """Minus the log of the reference's entropy, as a share of the largest possible, averaged over the tokens of both answers."""
    share = masked_sum(present(out.reference_entropy), batch.completion_mask)
    entropy, count = (torch.add(*sides(v, batch)) for v in (share, lengths(batch.completion_mask)))
    return {"dispersion": -torch.log((entropy / count).clamp(min=1e-6)).detach()}


def _tokens(out: ModelOut, batch: Batch) -> dict[str, Tensor]:
    return _of_both("mask", batch.completion_mask, batch)


def _uniform(out: ModelOut, batch: Batch) -> dict[str, Tensor]:
    return _of_both("uniform", present(batch.uniform), batch)


FIELDS: Mapping[str, PairField] = {
    "lengths": PairField(lambda out, batch: _of_both("length", lengths(batch.completion_mask), batch)),
    "gap": PairField(lambda out, batch: {"gap": present(batch.margin)}),
    "old": PairField(_old, needs=frozenset({Need.OLD_LOGP})),
    "position_kl": PairField(_position_kl, reads=frozenset({Head.REFERENCE_KL})),
    "alignment": PairField(_alignment, reads=frozenset({Head.COLLISION})),
    "dispersion": PairField(_dispersion, reads=frozenset({Head.REFERENCE_ENTROPY})),
    "tokens": PairField(_tokens),
    "uniform": PairField(_uniform, needs=frozenset({Need.UNIFORM})),
}
"""`length_*` [B] tokens; `gap` [B] the difference of the two scores; `old_*` [B] log-probs at the rollout's weights; `kl_*` [B]
the sum over tokens of KL(reference, policy); `alignment`, `dispersion` [B]; `mask_*`, `uniform_*` [B, C]."""
