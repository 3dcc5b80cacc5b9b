"""Parts of an experiment that checks look at: opened once, or the reason why they could not be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evenhand.errors import UserError


class Unavailable(Exception):
    """A check needs a part that could not be opened, or that the experiment does not have. The part's own check says why."""


@dataclass(frozen=True, slots=True)
class OpenedPart:
    """A part that was opened, or the reason why it could not be."""

    value: Any = None
    error: UserError | None = None

    def get(self) -> Any:
        if self.error is not None:
            raise Unavailable(str(self.error).splitlines()[0])
        return self.value


def attempt(make: Callable[[], Any]) -> OpenedPart:
    """What `make` returns, or the user's error it raised."""
    try:
        return OpenedPart(make())
    except UserError as error:
        return OpenedPart(error=error)
