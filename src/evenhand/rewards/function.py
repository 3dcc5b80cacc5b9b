"""A user's own reward: one function in one file."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from evenhand.errors import UserError, did_you_mean
from evenhand.plugins import beside, locate
from evenhand.protocols import Reward
from evenhand.rewards.pointwise import Pointwise, finite
from evenhand.rewards.time_limit import waiting_for
from evenhand.seeding import keyed
from evenhand.store.fingerprint import file_fingerprint
from evenhand.types import Group, Scores

LONGEST = 1e8
"""Seconds that any limit may have."""
_PACKAGE = Path(__file__).parents[1]


def load_function(path: str, *, base: str | Path = ".") -> Callable[..., Any]:
    """The function named by `file.py:function` (relative to `base`) or `package.module:function`.

    It is found as plugins are (`plugins.locate`); an experiment file's own paths are in full by then.
    Raises UserError for a missing file, a file that fails to run, and a missing function (with the nearest names).
    """
    source, name = named(path)
    code = locate(source, Path(base), where=path)
    beside(code.folder)
    module = _from_file(code.source, path) if source.endswith(".py") else _from_package(source, path)
    found = getattr(module, name, None)
    if found is None:
        functions = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise UserError(f"there is no '{name}' in {source}", where=path, fix=did_you_mean(name, functions) if functions else "")
    if not callable(found):
        raise UserError(f"'{name}' in {source} is not a function but {type(found).__name__}", where=path)
    return found


def named(path: str) -> tuple[str, str]:
    """File or module, and function.

    >>> named("rewards.py:brevity")
    ('rewards.py', 'brevity')
    """
    source, _, name = path.rpartition(":")
    if not source or not name:
        raise UserError(
            f"'{path}' names no function", where="reward function", fix="write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION"
        )
    return source, name


def without_folder(path: str) -> str:
    """A function's path as keys and records have it: where its file is decides nothing.

    >>> without_folder("/home/me/rewards.py:brevity"), without_folder("mine.rewards:brevity")
    ('rewards.py:brevity', 'mine.rewards:brevity')
    """
    return path.rpartition("/")[2]


def fingerprint_of(path: str) -> str | None:
    """Of the source that `load_function` takes the function from, with the neighbours it imports; None where there is none."""
    try:
        code = locate(named(path)[0], Path())
    except UserError:  # said in full where the function is loaded
        return None
    return file_fingerprint(code.source) if len(code.files) == 1 else code.digest


def _from_file(file: Path, path: str) -> ModuleType:
    name = f"evenhand_user_{file.stem}_{keyed(str(file)):x}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "a .py file has a loader"
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses and pickling look their module up by name
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), vars(module))  # never from a cache of bytecode
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        del sys.modules[name]
        raise UserError(
            f"the file does not run: {type(error).__name__}: {error}", where=path, fix=f"try: python {file}"
        ) from error
    return module


def _from_package(source: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(source)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        what = f"cannot import {source}: {type(error).__name__}: {error}"
        raise UserError(what, where=path, fix=f"try: python -c 'import {source}'") from error


@dataclass(frozen=True, slots=True)
class GroupFunction:
    """A user's function of a whole group: `f(group) -> one number per completion` (a pairwise judge, a diversity bonus)."""

    score: Callable[[Group], Any]
    name: str

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [self._one(group) for group in groups]

    def _one(self, group: Group) -> Scores:
        where = f"{self.name}, prompt {group.prompt.id}"
        found = self.score(replace(group, prompt=copy.deepcopy(group.prompt)))  # which it may change, and others still need
        if isinstance(found, str | bytes | Mapping | Set) or not hasattr(found, "__iter__"):
            what = f"expected a number for each answer, found {type(found).__name__}: {found!r:.60}"
            raise UserError(what, where=where, fix="return a list of numbers, in the order of the answers")
        values = tuple(finite(v, where) for v in found)
        if len(values) != len(group.completions):
            raise UserError(f"{len(values)} numbers for {len(group.completions)} completions", where=where)
        return Scores(values)


SEES: Mapping[str, Callable[..., Reward]] = {
    "completion": lambda score, name: Pointwise(lambda prompt, completion: score(copy.deepcopy(prompt), completion), name),
    "group": GroupFunction,
}


@dataclass(frozen=True, slots=True)
class FunctionReward:
    """`inner`, which calls the user's code and may take `seconds` for the answers to one prompt.

    UserError when it takes longer, for whatever it raises, and where it would end the program. Python code and what waits in the
    operating system are interrupted; a loop inside a compiled library is only named.
    """

    inner: Reward
    seconds: float
    name: str

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= LONGEST:
            raise UserError(f"a limit of {self.seconds} seconds", where="reward.seconds", fix=f"use above 0, up to {LONGEST:g}")

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [scores for group in groups for scores in self._one(group)]

    def _one(self, group: Group) -> list[Scores]:
        where = f"reward {self.name}, prompt {group.prompt.id}"
        with waiting_for(where, self.seconds):
            try:
                return self.inner([group])
            except UserError:
                raise
            except (Exception, SystemExit) as error:
                frames = [f for f in traceback.extract_tb(error.__traceback__) if not Path(f.filename).is_relative_to(_PACKAGE)]
                raise UserError(
                    f"the function raised {type(error).__name__}: {error}",
                    where=where,
                    why=f"at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "",
                    fix="mend it, or return None for an answer that cannot be scored",
                ) from error
