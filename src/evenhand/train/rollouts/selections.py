"""Selections: which completions of a rollout are trained on. A new one is a function from scores to places under `@selection`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from evenhand.core import selection as core
from evenhand.errors import UserError
from evenhand.registry import Registry
from evenhand.train.examples import Example, with_pairs
from evenhand.train.rollouts.experience import Credit, Experience, stated
from evenhand.types import Need

Draw = Callable[[str], Tensor]
"""Random numbers [P, G] in [0, 1) under a name of one's own, anew for every rollout."""
Select = Callable[[Tensor, Draw], Tensor]
"""Scores [P, G], NaN = unscored -> places in `scores.flatten()`: pairs [B, 2], better first, or single completions [B]."""

SELECTIONS: Registry[Credit] = Registry("selection")
"""By the names that an experiment file may hold, each with its default settings."""


@dataclass(frozen=True)
class Pairing(Credit):
    """One preference pair of each group; pairs of one text, but for white space, are left out."""

    name: str
    function: Select
    provides: ClassVar[frozenset[Need]] = frozenset({Need.PAIRS})
    per_completion: ClassVar[bool] = False
    compares: ClassVar[bool] = True

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        size = experience.reward.shape[1]
        pairs = self.function(experience.scores, experience.uniform).tolist()
        kept = [paired(experience.examples[better // size], better % size, worse % size) for better, worse in pairs]
        return [e for e in kept if e is not None]

    @override
    def about(self) -> str:
        return stated(self.function)


class Picking(Pairing):
    """Single completions, each for itself."""

    provides: ClassVar[frozenset[Need]] = frozenset()

    @override
    def __call__(self, experience: Experience) -> list[Example]:
        size = experience.reward.shape[1]
        return [
            experience.examples[i // size].only([i % size]) for i in self.function(experience.scores, experience.uniform).tolist()
        ]


def paired(example: Example, better: int, worse: int) -> Example | None:
    """The example with two completions as one pair; None when their texts are the same but for white space."""
    pair = example.only([better, worse])
    chosen, rejected = pair.tokens.group.completions
    return None if chosen.text.strip() == rejected.text.strip() else with_pairs(pair)


def selection(name: str, kind: type[Pairing] = Pairing) -> Callable[[Select], Pairing]:
    """Decorator: the function below, (scores, draw) -> places, is the selection called `name`; see `Select`.

    The `kind` Picking is for single completions. The docstring's first line says what is kept. It replaces the function, and is
    what `Rollouts(credit=...)` takes; `iterative_dpo` takes it by name as `pairs`.
    """

    def add(function: Select) -> Pairing:
        made = kind(name, function)
        SELECTIONS.register(name)(made)
        return made

    return add


@selection("best_vs_worst")
def best_vs_worst(scores: Tensor, draw: Draw) -> Tensor:
    """Best against worst of each group."""
    return core.best_vs_worst(scores, draw("ties"))


@selection("best_vs_random")
def best_vs_random(scores: Tensor, draw: Draw) -> Tensor:
    """Best against any other of each group."""
    return core.best_vs_random(scores, draw("ties"), draw("opponents"))


@selection("best", Picking)
def best(scores: Tensor, draw: Draw) -> Tensor:
    """The best of each group."""
    return core.best_of(scores, draw("ties"))


def rejection(temperature: float = 0.5) -> Pairing:
    """Two of each group, resampled by exp(reward / temperature) (RSO, Liu et al. 2023, algorithm 1)."""
    if not temperature > 0:
        raise UserError(f"rejection_temperature is {temperature}", where="rollouts", fix="use a positive number")

    def resampled(scores: Tensor, draw: Draw) -> Tensor:
        """Two of each group, resampled by their reward."""
        return core.rejection_pair(scores, draw("opponents"), temperature=temperature)

    return Pairing("rejection", resampled)


SELECTIONS.register("rejection")(rejection())
