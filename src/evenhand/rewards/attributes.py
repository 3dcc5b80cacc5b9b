"""A reward model of several attributes as a reward: what its scores are mixed to, and each of them as a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from evenhand.models.gate import output_names
from evenhand.rewards.model import ModelReward
from evenhand.types import Group, Head, Scores


@dataclass(frozen=True, slots=True)
class AttributeReward:
    """`sum_k w_k r_k` of the model's scores r by attribute, on the stored scale; `parts` are the scores as they are.

    Without `weights` the model's own gate says w by the prompt, after what it takes off scores for another.
    """

    model: ModelReward
    weights: Mapping[str, float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return output_names(self.model.reward_model.hf)

    def unscaled(self) -> AttributeReward:
        """The same on the scale of the mixture itself."""
        return replace(self, model=self.model.unscaled())

    def roomy(self) -> AttributeReward:
        """See `protocols.TrainedReward`."""
        return replace(self, model=self.model.roomy())

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        tokens = [self.model.tokens(group) for group in groups]
        rated = self.model.outputs(tokens)
        mixed = self.model.by_microbatch(tokens, partial(self.model.read, Head.SCORE)) if self.weights is None else None
        scale = self.model.normalisation
        made = []
        for n, rows in enumerate(rated):
            totals = mixed[n] if mixed is not None else tuple(self._total(row) for row in rows)
            parts = dict(zip(self.names, zip(*rows, strict=True), strict=True))
            made.append(Scores(tuple((t - scale.shift) / scale.scale for t in totals), parts))
        return made

    def _total(self, row: Sequence[float]) -> float:
        assert self.weights is not None
        return sum(self.weights.get(name, 0.0) * score for name, score in zip(self.names, row, strict=True))
