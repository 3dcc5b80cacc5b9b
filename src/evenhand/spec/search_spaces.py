"""Where an arm's settings are looked for: the space of `tune`, or its method's default; what lies in it, and at its edge."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from evenhand.configfile.schema import to_json
from evenhand.errors import UserError, did_you_mean
from evenhand.methods import METHODS
from evenhand.spec import value_ranges
from evenhand.spec.arms import Arm
from evenhand.spec.experiment import Experiment
from evenhand.spec.tuning import Dimension, SearchRange, Space, Tune

RATE = "learning_rate"
TRAIN = ("schedule", "warmup", "weight_decay", "clip", "betas", "eps")
"""Training settings that may be tuned besides the learning rate, as `train.NAME`; the budget is not among them."""
AROUND = 10.0
"""The default space of the learning rate: the arm's own, divided and multiplied by this."""
EDGE = 0.1
"""The share of a range, on either side, that counts as its edge."""


def space_of(arm: Arm, experiment: Experiment) -> dict[str, Dimension]:
    """The settings of one arm and what each may be; empty where there is nothing to tune."""
    tune = experiment.tune
    assert tune is not None
    own = tune.arms.get(arm.name)
    if not arm.trained or own == {}:
        return {}
    shared = default_space(arm.method, arm.learning_rate) if tune.space is None else tune.space
    merged = {**shared, **(own or {})}
    return {name: dimension for name, dimension in merged.items() if dimension is not None}


def default_space(method: str, rate: float) -> dict[str, Dimension]:
    """A method's space where the experiment names none: its learning rate a decade either way, and how it is held back."""
    return {RATE: SearchRange(log=(_rounded(rate / AROUND), _rounded(rate * AROUND))), **strengths().get(method, {})}


def strengths() -> dict[str, Space]:
    """Beside the learning rate: how strongly a method is held back, as it is declared beside the method.

    Methods that declare none have no such setting, or one whose useful values nobody has reported; their learning rate is tuned
    alone.
    """
    declared = METHODS.facts("space").items()
    return {
        name: {key: SearchRange(**d) if isinstance(d, Mapping) else d for key, d in space.items()} for name, space in declared
    }


def left_out(experiment: Experiment) -> dict[str, str]:
    """The arms that are not tuned, each with the reason."""
    found = {}
    for name, arm in experiment.all_arms().items():
        if not arm.trained:
            found[name] = "it is not trained"
        elif not space_of(arm, experiment):
            found[name] = "its space is empty"
    return found


def given(arm: Arm, experiment: Experiment, space: Space) -> dict[str, Any]:
    """The arm's settings as the file has them, for every setting of its space."""
    return {name: _given(arm, experiment, name) for name in space}


def tunable(arm: Arm) -> tuple[str, ...]:
    """The settings of an arm that may be tuned."""
    return (RATE, *(f"train.{n}" for n in TRAIN), *arm.parameters)


def _given(arm: Arm, experiment: Experiment, name: str) -> Any:
    if name == RATE:
        return arm.learning_rate
    return to_json(getattr(arm.train, name.removeprefix("train.")) if name.startswith("train.") else arm.parameters[name])


def inside(value: Any, dimension: Dimension) -> bool:
    """Whether a setting lies in its space.

    >>> inside(0.1, (0.01, 0.1)), inside(2e-5, SearchRange(log=(1e-5, 1e-3))), inside(2e-3, SearchRange(log=(1e-5, 1e-3)))
    (True, True, False)
    """
    if isinstance(dimension, tuple):
        return value in dimension
    low, high = dimension.ends
    return isinstance(value, int | float) and low <= value <= high


def points(dimension: Dimension, count: int) -> list[Any]:
    """The values of a grid along one dimension: the choices, or `points` (else `count`) even steps from end to end.

    >>> points(SearchRange(log=(1e-5, 1e-3)), 3), points(SearchRange(linear=(0.0, 0.2), points=2), 9), points((0.1, 0.3), 9)
    ([1e-05, 0.0001, 0.001], [0.0, 0.2], [0.1, 0.3])
    """
    if isinstance(dimension, tuple):
        return list(dimension)
    number = dimension.points or count
    return [at(dimension, i / (number - 1) if number > 1 else 0.5) for i in range(number)]


def at(span: SearchRange, share: float) -> float:
    """The number at a share of the way from the lower end to the upper, to three digits: what is written is what was run.

    >>> at(SearchRange(log=(1e-5, 1e-3)), 0.5), at(SearchRange(linear=(0.0, 0.2)), 1.0)
    (0.0001, 0.2)
    """
    low, high = span.ends
    value = low * (high / low) ** share if span.log else low + (high - low) * share
    return min(max(_rounded(value), low), high)


def grid(space: Space, trials: int) -> list[dict[str, Any]]:
    """Every combination; a space of one range has as many points as there are trials."""
    count = trials if len(space) == 1 else 0
    each = [points(dimension, count) for dimension in space.values()]
    return [dict(zip(space, values, strict=True)) for values in product(*each)]


def size(space: Space) -> float:
    """How many different settings a space holds; infinite where it has a range."""
    return math.prod(len(set(map(repr, d))) if isinstance(d, tuple) else math.inf for d in space.values())


def edges(settings: Mapping[str, Any], space: Space) -> list[str]:
    """The settings that lie at an end of their space, in words: what is better still may lie outside.

    Choices count where they are numbers; an end that no setting can go beyond (a KL weight of 0) is none.

    >>> edges({"beta": 0.5, "learning_rate": 1e-4}, {"beta": (0.1, 0.5), "learning_rate": SearchRange(log=(1e-5, 1e-3))})
    ['beta = 0.5 is at the upper end of its space (0.1, 0.5)']
    """
    return [
        f"{name} = {_text(settings[name])} is at the {end} end of its space ({words(dimension)})"
        for name, dimension in space.items()
        if name in settings and (end := _end(name, settings[name], dimension))
    ]


def _end(name: str, value: Any, dimension: Dimension) -> str:
    if isinstance(dimension, tuple):
        if len(dimension) < 2 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in dimension):
            return ""
        share = {min(dimension): 0.0, max(dimension): 1.0}.get(value, 0.5)
    else:
        low, high = dimension.ends
        share = math.log(value / low) / math.log(high / low) if dimension.log else (value - low) / (high - low)
    allowed = _range_of(name)
    if share <= EDGE:
        return "" if allowed is not None and not allowed.holds(value - 1e-9) else "lower"
    if share >= 1 - EDGE:
        return "" if allowed is not None and not allowed.holds(value + 1e-9) else "upper"
    return ""


def _range_of(setting: str) -> value_ranges.Range | None:
    """The numbers that a setting may take at all."""
    trains = setting == RATE or setting.startswith("train.")
    return value_ranges.TRAIN.get(setting.removeprefix("train.")) if trains else value_ranges.PARAMETERS.get(setting)


def words(dimension: Dimension) -> str:
    """A dimension as it is read: "0.01, 0.1" or "1e-05 to 0.001 (log)"."""
    if isinstance(dimension, tuple):
        return ", ".join(map(_text, dimension))
    low, high = dimension.ends
    return f"{low:g} to {high:g}" + (" (log)" if dimension.log else "")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


# ---- faults -------------------------------------------------------------------------------------------------------------


def problems(experiment: Experiment) -> Iterator[UserError]:
    """Faults of the spaces: unknown settings, values out of range, too few of them, grids of unequal size."""
    tune = experiment.tune
    if tune is None:
        return
    found: dict[str, UserError] = {}
    try:
        arms = experiment.all_arms()
        faults = {name: list(_arm_problems(arm, experiment, tune, name)) for name, arm in arms.items() if arm.trained}
    except UserError:  # an arm that cannot be made is told elsewhere
        return
    for name, arm in arms.items():
        if tune.arms.get(name) and not arm.trained:
            found[name] = UserError("it is not trained", where=f"tune.arms.{name}", fix="remove it")
        for fault in faults.get(name, ()):
            found.setdefault(fault.where, fault)  # what is wrong in the space of all arms is said once
    yield from found.values()


def _arm_problems(arm: Arm, experiment: Experiment, tune: Tune, name: str) -> Iterator[UserError]:
    space, own = space_of(arm, experiment), tune.arms.get(name) or {}
    if space and not arm.per_seed:
        yield UserError(
            "an arm that is trained once for all seeds cannot be tuned under others", where=f"arms.{name}.per_seed",
            fix=f"remove `per_seed: false`, or `tune: {{arms: {{{name}: {{}}}}}}`",
        )  # fmt: skip
    faults: list[UserError] = []
    for setting, dimension in space.items():
        where = f"tune.arms.{name}.{setting}" if setting in own else f"tune.space.{setting}"
        faults += _dimension_problems(arm, setting, dimension, where)
    yield from faults
    if space and not faults:
        yield from _count_problems(space, tune.sampler, tune.trials, name)


def _dimension_problems(arm: Arm, setting: str, dimension: Dimension, where: str) -> Iterator[UserError]:
    if setting not in (names := tunable(arm)):
        only = "; settings of some arms only go under `tune.arms`" if where.startswith("tune.space") else ""
        yield UserError(f"{arm.method} has no '{setting}' to tune", where=where, fix=did_you_mean(setting, names) + only)
        return
    if isinstance(dimension, SearchRange):
        if (dimension.log is None) == (dimension.linear is None):
            yield UserError("name either `log` or `linear`", where=where, fix="for example {log: [1.0e-5, 1.0e-3]}")
            return
        low, high = dimension.ends
        if not low < high or (dimension.log and low <= 0):
            yield UserError(
                f"{low:g} to {high:g} is no range", where=where, fix="give the lower end first; `log` needs it above 0"
            )
            return
    elif not dimension:
        yield UserError("no value to choose from", where=where, fix="name some, or `null` to leave the setting as it is")
    allowed = _range_of(setting)
    for value in dimension if isinstance(dimension, tuple) else dimension.ends:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if allowed is not None and number and not allowed.holds(value):
            yield UserError(f"{value:g} is out of range", where=where, why=allowed.why, fix=f"give numbers {allowed}")


def _count_problems(space: Space, sampler: str, trials: int, name: str) -> Iterator[UserError]:
    where = f"tune.arms.{name}"
    if sampler != "grid":
        if size(space) < trials:
            yield UserError(
                f"the space of {name} has {size(space):.0f} settings, fewer than {trials} trials", where=where,
                why="every arm gets the same number of trials, each of another setting", fix="widen it, or ask for fewer trials",
            )  # fmt: skip
        return
    if len(space) > 1 and any(isinstance(d, SearchRange) and d.points is None for d in space.values()):
        yield UserError("a range in a grid needs `points`", where=where, fix="for example {log: [1.0e-5, 1.0e-3], points: 4}")
        return
    if (count := len(grid(space, trials))) != trials:
        yield UserError(
            f"the grid of {name} has {count} points, but there are {trials} trials", where=where,
            why="every arm gets the same number of trials", fix="make all grids equally large and `trials` their size",
        )  # fmt: skip


# ---- the table of defaults ----------------------------------------------------------------------------------------------


def table() -> str:
    """The settings that are tuned beside the learning rate, as Markdown: methods with the same ones share a row."""
    rows: dict[str, list[str]] = {}
    for method, space in strengths().items():
        rows.setdefault("; ".join(f"`{name}` {words(dimension)}" for name, dimension in space.items()), []).append(method)
    lines = ["| methods | beside the learning rate |", "|---|---|"]
    lines += [f"| {' '.join(f'`{method}`' for method in methods)} | {told} |" for told, methods in rows.items()]
    return "\n".join([*lines, "| every other method | nothing |"])


BEGIN, END = "<!-- spaces:begin -->", "<!-- spaces:end -->"


def with_table(page: str) -> str:
    """A page with its table of default spaces as the code has it."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"
