"""What differs between the experiments of several runs, key by key, and what was held equal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from evenhand.results.paths import without_folders
from evenhand.results.side_by_side.opened import OpenedRun
from evenhand.store.fingerprint import canonical

NOT_SET = "not set"
"""What a run has where it does not set a key: its default counts."""


class Touches(StrEnum):
    """What a key bears on."""

    TRAINING = "training"
    MEASURING = "measuring"
    VERSIONS = "versions"
    NOTHING = "nothing"
    """No number depends on it."""


_MEASURING = ("judge", "evaluation", "evaluations", "baseline")
_MAKES = re.compile(r"(data|base|sft|(?:arms|reward_models)/[^/]+)(?:/seed-\d+)?")
"""Stages that make the data or a model, rather than something that is prepared or measured."""
_NOTHING = re.compile(
    r"(name|description|tracker|doctor|runtime\.(workers|store|runner|address|resources))(\..*)?|(.*\.)?train\.(checkpoint_every|on_memory)"
)


class SettingRow(NamedTuple):
    """A key of the experiment and its value in every run, in words."""

    key: str
    values: tuple[str, ...]
    touches: Touches


class StageShared(NamedTuple):
    """A stage, all its seeds together, and whether every run has the very same result of it. None: not every run has it."""

    name: str
    same: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsCompared:
    """`apart`: keys whose values differ; `equal`: the others with their value. `unrecorded`: runs without their experiment."""

    apart: tuple[SettingRow, ...]
    equal: tuple[tuple[str, str], ...]
    stages: tuple[StageShared, ...]
    unrecorded: tuple[str, ...]


def compare_settings(runs: Sequence[OpenedRun]) -> SettingsCompared:
    """The experiments in effect of all runs that recorded theirs, and the versions that made them."""
    told = [run for run in runs if run.effective]
    apart: list[SettingRow] = []
    equal: list[tuple[str, str]] = []
    if len(told) == len(runs):
        _walk("", [run.effective for run in runs], apart, equal)
        _walk("versions", [run.experiment.get("versions") or {} for run in runs], apart, equal)
    order = list(Touches)
    return SettingsCompared(
        apart=tuple(sorted(apart, key=lambda row: order.index(row.touches))),
        equal=tuple(equal),
        stages=_stages(runs),
        unrecorded=tuple(run.label for run in runs if not run.effective),
    )


_ABSENT = object()


def _walk(path: str, values: Sequence[Any], apart: list[SettingRow], equal: list[tuple[str, str]]) -> None:
    """Goes down as long as every run has a table there; a table that only some have is one row."""
    if all(isinstance(v, Mapping) for v in values):
        for key in dict.fromkeys(key for v in values for key in v):
            _walk(f"{path}.{key}" if path else str(key), [v.get(key, _ABSENT) for v in values], apart, equal)
    elif any(_differ(values[0], v) for v in values[1:]):
        apart.append(SettingRow(path, tuple(in_words(v) for v in values), _touches(path)))
    else:
        equal.append((path, in_words(values[0])))


def _differ(one: Any, other: Any) -> bool:
    if one is _ABSENT or other is _ABSENT:
        return one is not other
    return canonical(one) != canonical(other)


def in_words(value: Any) -> str:
    """A value of an experiment as its file would have it, on one line; folders of this machine keep their last part.

    >>> in_words({"method": "dpo", "beta": 0.1}), in_words(None), in_words([0, 1]), in_words(True)
    ('method: dpo, beta: 0.1', 'none', '0, 1', 'true')
    """
    if value is _ABSENT:
        return NOT_SET
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_inner(item)}" for key, item in value.items()) or "nothing"
    if isinstance(value, list | tuple):
        return ", ".join(_inner(item) for item in value) or "nothing"
    return _inner(value)


def _inner(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + in_words(value) + "}" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inner, value)) + "]"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else without_folders(str(value))


def _touches(path: str) -> Touches:
    section = path.split(".")[0]
    if section == "versions":
        return Touches.VERSIONS
    return Touches.MEASURING if section in _MEASURING else Touches.NOTHING if _NOTHING.fullmatch(path) else Touches.TRAINING


def _stages(runs: Sequence[OpenedRun]) -> tuple[StageShared, ...]:
    """Data, start, reward models and arms: by their keys, over the seeds that all runs have."""
    groups: dict[str, dict[str, None]] = {}
    for run in runs:
        for name in run.keys:
            if made := _MAKES.fullmatch(name):
                groups.setdefault(made[1], {})[name] = None
    return tuple(StageShared(group, _same(runs, tuple(names))) for group, names in groups.items())


def _same(runs: Sequence[OpenedRun], names: Sequence[str]) -> bool | None:
    common = [name for name in names if all(name in run.keys for run in runs)]
    if not common:
        return None
    return all(len({run.keys[name] for run in runs}) == 1 for name in common)
