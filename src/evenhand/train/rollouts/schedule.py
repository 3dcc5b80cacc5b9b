"""How often a rollout is trained on, and what is trained on beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from evenhand.errors import one_of
from evenhand.train.examples import Example
from evenhand.train.policies import GENERATOR, INITIAL_POLICY, LAST
from evenhand.train.shuffling import permutation


@dataclass(frozen=True)
class Schedule:
    """A rollout covers `updates / epochs` optimizer steps' worth of prompts and is trained on for `updates` steps.

    `accumulate` keeps earlier rollouts in the training set; `hybrid` adds the fixed pairs of the data to every rollout. Each
    rollout is trained on from the weights that `initialise` names: the last ones, or those of the initial policy. With `renew`
    the proximal policy, whose log-probs are `old_logp`, is the current one again after so many updates (decoupled PPO).

    A rollout is sampled `staleness` optimizer steps before the first update on it, from the weights of that time; those of the
    first steps from the initial ones. At that first update the `proximal` policy is the last one, or the generator.
    """

    updates: int = 1
    epochs: int = 1
    accumulate: bool = False
    hybrid: bool = False
    initialise: str = LAST
    renew: int = 0
    staleness: int = 0
    proximal: str = LAST

    def __post_init__(self) -> None:
        one_of("initialise", self.initialise, (LAST, INITIAL_POLICY), where="rollouts")
        one_of("proximal", self.proximal, (LAST, GENERATOR), where="staleness")

    def due(self, step: int, steps: int | None = None) -> range:
        """The rollouts that are sampled before optimizer step `step` (from 0), of a training of `steps`.

        >>> [list(Schedule(updates=2, staleness=3).due(step, 10)) for step in range(6)]
        [[0, 1], [2], [], [3], [], [4]]
        """
        last, left = divmod(step + self.staleness, self.updates)
        first = 0 if step == 0 else last if left == 0 else last + 1
        end = last + 1 if steps is None else min(last + 1, -(-steps // self.updates))
        return range(first, end)

    def renews(self, update: int) -> bool:
        """Whether the proximal policy is renewed before this update of a rollout; the first has it as sampled."""
        return bool(self.renew and update and update % self.renew == 0)

    def prompts(self, per_step: int) -> int:
        """Prompts of one rollout."""
        return per_step * self.updates // self.epochs


@dataclass(kw_only=True)
class Buffer:
    """The examples that are trained on at present, and beside them the fixed ones of the data, which no checkpoint repeats."""

    schedule: Schedule
    seed: int
    fixed: Sequence[Example] = ()
    examples: list[Example] = field(default_factory=list)

    def add(self, fresh: list[Example]) -> None:
        self.examples = [*self.examples, *fresh] if self.schedule.accumulate else fresh

    def share(self, rollout: int, update: int) -> list[Example]:
        """The examples of one update: a slice of this epoch's keyed permutation of the rollout."""
        per_epoch = max(1, self.schedule.updates // self.schedule.epochs)
        epoch, part = divmod(update, per_epoch)
        examples = [*self.examples, *self.fixed]
        size = len(examples)
        once = per_epoch == 1 and self.schedule.epochs == 1
        order = range(size) if once else permutation(self.seed, f"rollout-{rollout}", epoch, size)
        return [examples[i] for i in order[size * part // per_epoch : size * (part + 1) // per_epoch]]
