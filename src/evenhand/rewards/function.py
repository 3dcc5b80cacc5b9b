"""A user's own reward: one function in one file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from evenhand.errors import UserError, did_you_mean
from evenhand.protocols import Reward
from evenhand.rewards.pointwise import pointwise
from evenhand.seeding import keyed
from evenhand.types import Group, Scores


def load_function(path: str, *, base: str | Path = ".") -> Callable[..., Any]:
    """The function named by `file.py:function` (relative to `base`) or `package.module:function`.

    Raises UserError for a missing file, a file that fails to run, and a missing function (with the nearest names).
    """
    source, _, name = path.rpartition(":")
    if not source or not name:
        raise UserError(
            f"'{path}' names no function", where="reward function", fix="write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION"
        )
    module = _from_file(Path(base, source), path) if source.endswith(".py") else _from_package(source, path)
    found = getattr(module, name, None)
    if found is None:
        functions = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise UserError(f"there is no '{name}' in {source}", where=path, fix=did_you_mean(name, functions) if functions else "")
    if not callable(found):
        raise UserError(f"'{name}' in {source} is not a function but {type(found).__name__}", where=path)
    return found


def source_of(path: str, *, base: str | Path = ".") -> Path | None:
    """The file that `load_function` would take the function from; None where there is none, or it is not Python's source."""
    source = path.rpartition(":")[0]
    if source.endswith(".py"):
        return Path(base, source) if Path(base, source).is_file() else None
    try:
        found = importlib.util.find_spec(source)
    except (ImportError, ValueError):  # said in full where the function is loaded
        return None
    return Path(found.origin) if found is not None and found.origin and found.has_location else None


def _from_file(file: Path, path: str) -> ModuleType:
    if not file.is_file():
        raise UserError(
            f"there is no file {file}", where=path, fix="name it from the folder that the command runs in, or in full"
        )
    name = f"evenhand_user_{file.stem}_{keyed(str(file.resolve())):x}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code may raise anything
        del sys.modules[name]
        raise UserError(
            f"the file does not run: {type(error).__name__}: {error}", where=path, fix=f"try: python {file}"
        ) from error
    return module


def _from_package(source: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(source)
    except ImportError as error:
        raise UserError(
            f"cannot import {source}: {error}", where=path, fix="install it, or name a file: FILE.py:FUNCTION"
        ) from error


@dataclass(frozen=True, slots=True)
class GroupFunction:
    """A user's function of a whole group: `f(group) -> one number per completion` (a pairwise judge, a diversity bonus)."""

    score: Callable[[Group], Sequence[float]]
    name: str

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [self._one(group) for group in groups]

    def _one(self, group: Group) -> Scores:
        values = tuple(float(v) for v in self.score(group))
        if len(values) != len(group.completions):
            raise UserError(f"{len(values)} numbers for {len(group.completions)} completions", where=self.name)
        return Scores(values)


SEES: Mapping[str, Callable[..., Reward]] = {"completion": pointwise, "group": GroupFunction}
