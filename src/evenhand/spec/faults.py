"""Checks that raise, in the form of checks that yield what is wrong, so that all faults are told together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from evenhand.errors import UserError
from evenhand.spec.arms import Arm
from evenhand.spec.experiment import Experiment


def fault_of(check: Callable[..., object], *given: Any, **named: Any) -> Iterator[UserError]:
    """The fault that a check raises; nothing where it raises none."""
    try:
        check(*given, **named)
    except UserError as error:
        yield error


def trained(e: Experiment) -> tuple[dict[str, Arm], list[UserError]]:
    """Everything that is trained, by its place in the file, as far as it can be made; and the faults of the rest."""
    made, faults = dict[str, Arm](), []
    for place, make in e.trainings().items():
        try:
            if (arm := make()) is not None:
                made[place] = arm
        except UserError as error:
            faults.append(error)
    return made, faults
