"""Reward models of several outputs: ratings of attributes, and embeddings that preferences are read off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from evenhand.core.general_preference import general_preference
from evenhand.objectives.pair_fields import pair_weight, sides
from evenhand.objectives.parts import metric, order_metrics, present, row_weight
from evenhand.objectives.registry import objective
from evenhand.types import Batch, Head, ModelOut, Need, Term, Terms


@objective("attribute_regression")
@dataclass(frozen=True, kw_only=True)
class AttributeRegression:
    """`(s_k - y_k)^2` over the ratings `[N, K]` that are there, averaged over all of them: a missing one (NaN) counts nowhere.

    `y_k = (rating - low) / (high - low)`, of the lowest and the highest rating that `attributes` gives each. Every score is read
    at the last token. Source: Wang et al. 2024 (arXiv:2406.12845). Gradient in s_k: 2 (s_k - y_k)."""

    reads: ClassVar[frozenset[Head]] = frozenset({Head.SCORES})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.RATINGS})
    attributes: Mapping[str, tuple[float, float]]

    def _weight(self, batch: Batch) -> Tensor:
        """[N, K]: the answer's weight where it has that rating."""
        known = ~present(batch.ratings).isnan()
        return row_weight(batch, present(batch.ratings))[:, None] * known

    def denominators(self, batch: Batch) -> Tensor:
        return self._weight(batch).sum().reshape(1)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        scores, weight = present(out.scores), self._weight(batch)
        given = present(batch.ratings).nan_to_num(0.0).to(scores.dtype)
        scales = enumerate(self.attributes.values())
        off = scores - torch.stack([(given[:, k] - low) / (high - low) for k, (low, high) in scales], 1)
        metrics = {f"error/{name}": metric(off[:, k] ** 2, weight[:, k]) for k, name in enumerate(self.attributes)}
        return Terms((Term("regression", off**2, weight.to(scores.dtype)),), metrics)


@objective("general_preference")
@dataclass(frozen=True, kw_only=True)
class GeneralPreference:
    """`nls(<R v_chosen, v_rejected> / tau)` on embeddings `[N, 2k]`, averaged over pairs: `core.general_preference`.

    It cannot tell who is better in itself, only who is preferred to whom, in circles too. A ranking of k answers gives all its
    pairs, each weighted 1 / (number of pairs). Source: Zhang et al. 2024 (arXiv:2410.02197). Where answers are embedded alike its
    value is log 2."""

    reads: ClassVar[frozenset[Head]] = frozenset({Head.SCORES})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS})
    tau: float = 0.1

    def denominators(self, batch: Batch) -> Tensor:
        return pair_weight(batch, torch.float32).sum().reshape(1)

    def __call__(self, out: ModelOut, batch: Batch) -> Terms:
        score = general_preference(*sides(present(out.scores), batch)) / self.tau
        weight = pair_weight(batch, score.dtype)
        return Terms((Term("general_preference", softplus(-score), weight),), order_metrics(score.detach(), weight))
