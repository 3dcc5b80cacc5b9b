"""A trained reward model as a reward: token ids in, one number per completion out, on a scale that is stored with the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from evenhand.data.batch import pack, split_by_tokens
from evenhand.data.foreign import readable
from evenhand.data.window import fitted, window_of
from evenhand.errors import UserError
from evenhand.models.artifacts import NORMALISATION_FILE
from evenhand.types import Group, Head, Scores, TokenGroup

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.models.heads import RewardModel

READER = "reward model"
"""What messages call it."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """`reward = (score - shift) / scale`. The Bradley-Terry loss leaves the level of the scores free; this fixes it."""

    shift: float = 0.0
    scale: float = 1.0

    @classmethod
    def fit(cls, scores: Sequence[float]) -> Normalisation:
        """Mean 0 and (population) std 1 over the scores of some reference answers, say the SFT model's."""
        values = np.asarray(scores, dtype=float)
        if not np.isfinite(values).all() or values.size < 2 or values.std() == 0:
            raise UserError(
                f"cannot normalise by {values.size} scores with std {values.std() if values.size else 0:.3g}",
                where="reward model",
                why="they must be finite and differ",
                fix="score more answers; if all scores are equal, the reward model has learned nothing",
            )
        return cls(shift=float(values.mean()), scale=float(values.std()))

    def save(self, folder: Path) -> None:
        (folder / NORMALISATION_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Normalisation:
        """What `save` wrote; the identity for a reward model from elsewhere, which has none."""
        file = folder / NORMALISATION_FILE
        return cls(**json.loads(file.read_text())) if file.exists() else cls()


@dataclass(frozen=True, slots=True)
class ModelReward:
    """Scores of `reward_model` [n], read at each completion's last token, as `(score - shift) / scale`.

    Sampled completions are scored on the very ids that were sampled, stop token included, so that the model sees what it
    was trained on; the answer of a policy with another tokenizer is rendered and tokenised anew, as an answer in data is. An
    answer that did not stop is scored at its last token: see `shaping.Unfinished` for rules about that. What is longer than the
    model's context loses its prompt's beginning, which is said once; an answer that is longer is refused.
    Micro-batches hold at most `tokens_per_microbatch` tokens; lengths in tokens. No gradient.
    """

    reward_model: RewardModel
    renderer: Renderer
    max_prompt: int | None
    max_completion: int | None
    tokens_per_microbatch: int
    normalisation: Normalisation = Normalisation()

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [Scores(row) for row in self.by_microbatch([self.tokens(group) for group in groups], self.scores)]

    def unscaled(self) -> Self:
        """See `protocols.TrainedReward`."""
        return replace(self, normalisation=Normalisation())

    def roomy(self) -> Self:
        """See `protocols.TrainedReward`."""
        return self if self.max_completion is None else replace(self, max_completion=2 * self.max_completion)

    def outputs(self, groups: Sequence[TokenGroup]) -> list[tuple[tuple[float, ...], ...]]:
        """All K outputs of the model for every answer, as they are, in micro-batches."""
        return self.by_microbatch(groups, partial(self.read, Head.SCORES))

    def by_microbatch(self, groups: Sequence[TokenGroup], read: Callable[[Sequence[TokenGroup]], list[_T]]) -> list[_T]:
        """What `read` finds for every group, read in micro-batches, in their order."""
        found: dict[int, _T] = {}
        for indices in split_by_tokens([t.size for t in groups], self.tokens_per_microbatch):
            found.update(zip(indices, read([groups[i] for i in indices]), strict=True))
        return [found[i] for i in range(len(groups))]

    @property
    def context(self) -> int | None:
        """Tokens that the model has positions for; None when its config does not say."""
        return window_of(self.reward_model.hf.config)

    def tokens(self, group: Group) -> TokenGroup:
        """A group as the model reads it."""
        own = readable(group, self.renderer)
        tokens = self.renderer.tokenise(own, max_prompt=self.max_prompt, max_completion=self.max_completion)
        return fitted(tokens, self.context, reader=READER)

    def scores(self, groups: Sequence[TokenGroup]) -> list[tuple[float, ...]]:
        """The scores of one micro-batch, each read at its completion's last token."""
        return self.read(Head.SCORE, groups, self.normalisation)

    def read(self, head: Head, groups: Sequence[TokenGroup], scale: Normalisation = Normalisation()) -> list[tuple[Any, ...]]:
        """What the model says at each completion's last token, for one micro-batch: a number, or a tuple of K."""
        import torch

        model = self.reward_model
        training = model.training
        model.eval()  # a score must not depend on dropout
        with torch.no_grad():
            found = getattr(model(pack(groups).to(model.device), frozenset({head})), head.value)
        model.train(training)
        known = (found.double() - scale.shift) / scale.scale
        if not bool(known.isfinite().all()):
            raise UserError(
                "a score is not finite", where="reward model",
                why="its weights have diverged, or overflow in their precision",
                fix="lower the learning rate it was trained with, or set `model.dtype` to float32",
            )  # fmt: skip
        values = iter(known.tolist() if known.ndim == 1 else map(tuple, known.tolist()))
        return [tuple(next(values) for _ in group.completions) for group in groups]
