"""Processes that train one network together. One process is the case in which every method here is the identity.

Every rank builds the same step: a source is a function of seed and index, and what is sampled is gathered. So denominators,
credit, selections and buffers need no communication. A rank computes its share of the micro-batches; gradients, losses and
metrics are summed, and are those of one process to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from evenhand.train import tensor_files

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

T = TypeVar("T")
M = TypeVar("M", bound="Module")
_IDLE: ContextVar[bool] = ContextVar("idle", default=False)


@dataclass(frozen=True, slots=True)
class RankTurn:
    """The piece of work `index`, now. `share` is 0 where a rank only keeps step with others that have one piece more."""

    index: int
    share: float = 1.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, work of a turn that has no share is known as idle."""
        token = _IDLE.set(self.share == 0)
        try:
            yield
        finally:
            _IDLE.reset(token)


def idle() -> bool:
    """Whether what is computed now only keeps step with other ranks, and is spent on nothing."""
    return _IDLE.get()


class Ranks:
    """One process; `train.distributed` has several. `rank` of `size`; the first writes what is kept."""

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def saves(self) -> bool:
        """Whether this rank has a part in writing the model: the first alone, or all that hold parts of it.

        All but the first write into folders that are thrown away.
        """
        return self.first

    def opening(self) -> AbstractContextManager[None]:
        """Inside, a network is opened that will be `placed`."""
        return nullcontext()

    def placed(self, model: M) -> M:
        """The same network, its weights where these ranks hold them; before an optimizer sees them."""
        return model

    def turns(self, sizes: Sequence[int]) -> list[RankTurn]:
        """This rank's turns at pieces of work of these `sizes`: all ranks together do each piece once."""
        return [RankTurn(index) for index in range(len(sizes))]

    def everyone(self, mine: T) -> list[T]:
        """What every rank has in the place of `mine`, by rank."""
        return [mine]

    def told(self, say: Callable[[], T]) -> T:
        """What the first rank says; no other is asked."""
        return say()

    def before_backward(self, model: Module, last: bool) -> None:
        """Called before each backward pass of a step; gradients may leave this rank with the `last`."""

    def sum_gradients(self, model: Module) -> None:
        """Called after a step's last backward pass: from now on gradients are those of all ranks."""

    def whole(self, model: Module) -> AbstractContextManager[None]:
        """Inside, this rank has all weights as plain tensors."""
        return nullcontext()

    def write(self, tensors: Mapping[str, Tensor], place: Path) -> None:
        """Leaves the tensors at `place`, which is the same for all ranks: `train.tensor_files` reads them."""
        tensor_files.write(tensors, place)


ONE = Ranks()
"""One process."""


def in_order(ranks: Ranks, mine: Mapping[int, T]) -> list[T]:
    """The results of all pieces of work, in order, from those of each rank by index.

    >>> in_order(ONE, {1: "b", 0: "a"})
    ['a', 'b']
    """
    found = {index: result for part in ranks.everyone(mine) for index, result in part.items()}
    return [found[index] for index in sorted(found)]


def summed(ranks: Ranks, mine: Mapping[str, float]) -> dict[str, float]:
    """Numbers by name, summed over ranks; a name may be missing on some."""
    total: dict[str, float] = {}
    for part in ranks.everyone(dict(mine)):
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total


def dealt(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Indices of pieces of work for each of `ranks`: equally many, but for one, and of about equal size together.

    >>> dealt([5, 1, 4, 2], 2)
    [[0, 1], [2, 3]]
    """
    most = -(-len(sizes) // ranks)
    hands: list[list[int]] = [[] for _ in range(ranks)]
    held = [0] * ranks
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        hand = min((h for h in range(ranks) if len(hands[h]) < most), key=lambda h: (held[h], h))
        hands[hand].append(index)
        held[hand] += sizes[index]
    return [sorted(hand) for hand in hands]
