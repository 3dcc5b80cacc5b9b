"""Parts of an experiment that checks look at: opened once, or the reason why they could not be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

from evenhand.errors import UserError

T = TypeVar("T")


class Unavailable(Exception):
    """A check needs a part that could not be opened, or that the experiment does not have. The part's own check says why."""


class OpenedPart(Generic[T]):
    """Decorates the method that opens a part: an attribute that is opened when it is first asked for, and kept.

    One that a user's error kept shut raises `Unavailable` every time; `CLASS.PART.error(instance)` is that error.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make, self.name, self.__doc__ = make, make.__name__, make.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...
    @overload
    def __get__(self, owner: object, kind: type) -> T: ...
    def __get__(self, owner: object | None, kind: type) -> T | Self:
        if owner is None:
            return self
        if (error := self.error(owner)) is not None:
            raise Unavailable(str(error).splitlines()[0])
        return vars(owner)[self.name]  # which is found before this from here on

    def error(self, owner: object) -> UserError | None:
        """What kept the part of `owner` shut; None where it is open."""
        kept, shut = vars(owner), f"{self.name} is shut"
        if self.name not in kept and shut not in kept:
            try:
                kept[self.name] = self.make(owner)
            except UserError as error:
                kept[shut] = error
        return kept.get(shut)
