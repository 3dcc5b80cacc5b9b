"""Checks of what a run asks of a Ray cluster, before any is there."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import fields

from evenhand.errors import UserError, did_you_mean
from evenhand.spec.experiment import Experiment, Resources
from evenhand.stages import KINDS

PACKAGE = "ray"


def cluster_problems(e: Experiment) -> Iterator[UserError]:
    """A cluster that is asked for and not used, a package that is not there, resources of nothing, amounts below 0."""
    runtime = e.runtime
    if runtime.runner == "local":
        for key in ("address", "resources"):
            if getattr(runtime, key):
                why = "processes of this machine carry the stages out"
                yield UserError(
                    f"`{key}` has no effect here", where=f"runtime.{key}", why=why, fix="add `runner: ray`, or remove it"
                )
        return
    if importlib.util.find_spec(PACKAGE) is None:
        fix = "pip install 'evenhand[ray]', or use `runtime: {runner: local}`"
        yield UserError("the package ray is not installed", where="runtime.runner", fix=fix)
    known = (*sorted(KINDS), *e.arms)
    for name, asked in runtime.resources.items():
        where = f"runtime.resources.{name}"
        if name not in known:
            yield UserError(f"'{name}' is no kind of stage and no arm", where=where, fix=did_you_mean(name, known))
        for part in fields(Resources):
            if (amount := getattr(asked, part.name)) is not None and amount < 0:
                yield UserError(f"{amount:g} is out of range", where=f"{where}.{part.name}", fix="give a number of at least 0")
