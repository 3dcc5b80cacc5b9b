"""Input checks shared by the statistics: plain float arrays, no NaN, no silent dropping of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evenhand.errors import UserError

Array = NDArray[np.float64]


def as_vector(values: ArrayLike, where: str, *, at_least: int = 1) -> Array:
    """`values` as a finite float array [n]; UserError when it is something else."""
    array = _floats(values, where)
    if array.ndim != 1:
        raise UserError(f"expected one dimension, got shape {array.shape}", where=where)
    return _checked(array, where, at_least)


def as_table(values: ArrayLike, where: str, *, at_least: int = 2) -> Array:
    """`values` as a finite float array [seeds, prompts]; one row is added to [prompts]."""
    array = _floats(values, where)
    if array.ndim not in (1, 2):
        raise UserError(f"expected [prompts] or [seeds, prompts], got shape {array.shape}", where=where)
    return _checked(np.atleast_2d(array), where, at_least)


def as_outcomes(values: ArrayLike, where: str) -> Array:
    """Outcomes in [0, 1] as [seeds, prompts]: 1 win, 0.5 tie, 0 loss, anything between for a soft judge."""
    table = as_table(values, where, at_least=1)
    if table.min() < 0.0 or table.max() > 1.0:
        span = f"[{table.min():g}, {table.max():g}]"
        raise UserError(f"outcomes lie in {span}, not in [0, 1]", where=where, fix="AlpacaEval preferences: subtract 1")
    return table


def same_shape(where: str, **arrays: Array) -> None:
    """UserError naming the shapes when they differ."""
    if len({a.shape for a in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise UserError(f"shapes differ: {shapes}", where=where, fix="use the same prompts in the same order")


def _floats(values: ArrayLike, where: str) -> Array:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"not a rectangular table of numbers ({error})", where=where, fix="judge every seed on every prompt"
        ) from error


def _checked(array: Array, where: str, at_least: int) -> Array:
    if array.shape[-1] < at_least or array.size == 0:
        raise UserError(f"needs at least {at_least} values, got {array.shape[-1]}", where=where)
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        what, fix = f"{bad} of {array.size} values are not finite", "resolve them first (an invalid judgement counts 0.5)"
        raise UserError(what, where=where, why="dropping rows would change which prompts are compared", fix=fix)
    return array
