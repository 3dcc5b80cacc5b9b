"""Faults of the annotator, of the further splits of the data, and of the shape of a world's own model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from evenhand.configfile.schema import from_signature
from evenhand.data.config import SPLITS, Split
from evenhand.data.source import check_source
from evenhand.errors import UserError
from evenhand.spec.experiment import Experiment
from evenhand.spec.faults import fault_of
from evenhand.spec.reward_resolution import world_problem
from evenhand.synthesis.config import REVISED
from evenhand.worlds import Annotator


def problems(e: Experiment) -> Iterator[UserError]:
    """Every fault that needs no device to find."""
    yield from _annotator(e.data.annotator, e.data.world, "data.annotator")
    for name, split in e.splits.items():
        yield from _split(e, split, name, f"splits.{name}")
    if e.splits and e.tune is not None:
        yield UserError(
            "prompts that tuning asks may be in them", where="splits", why="tuning takes its prompts out of `data` alone",
            fix="tune without `splits`, and copy what was chosen",
        )  # fmt: skip


def _split(e: Experiment, split: Split, name: str, where: str) -> Iterator[UserError]:
    if name in (*SPLITS, *REVISED) or name.startswith("heldout_"):
        yield UserError(f"'{name}' is a split already", where=where, fix="give it another name")
    if (split.source is None) == (split.rows is None):
        fix = "a `source`, or what the world makes: `rows: preferences`"
        yield UserError("name either `source` or `rows`", where=where, fix=fix)
        return
    if split.rows is None:
        for key in ("options", "annotator"):
            if getattr(split, key):
                yield UserError(f"`{key}` are a built-in world's", where=f"{where}.{key}", fix="remove it, or ask for `rows`")
        yield from fault_of(check_source, split.source or {}, where=f"{where}.source")
        return
    if e.data.world is None:
        yield UserError("`rows` are a built-in world's", where=f"{where}.rows", fix="name a `source`, or `data.world`")
        return
    if split.count < 1:
        yield UserError(f"{split.count} rows", where=f"{where}.count", fix="use at least 1")
    for fault in world_problem(e.data.world, {**e.data.options, **split.options}):
        yield UserError(fault.what, where=f"{where}.options", fix=fault.fix)
    yield from _annotator({**e.data.annotator, **split.annotator}, e.data.world, f"{where}.annotator")


def _annotator(told: Mapping[str, float], world: str | None, where: str) -> Iterator[UserError]:
    """What a world's annotator is told otherwise, tried on one that has no other fault."""
    if told and world is None:
        yield UserError("the annotator is a built-in world's", where=where, fix="name `data.world`, or remove it")
    try:
        Annotator(**{"temperature": 1.0, **from_signature(Annotator, {"temperature": 1.0, **told}, where)})
    except UserError as error:
        inside = error.where.startswith(where)
        yield error if inside else UserError(error.what, where=f"{where}.{error.where}", fix=error.fix)
