"""The groups of a split, from the finished artifacts that hold the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from evenhand.data.config import FOR_JUDGES
from evenhand.data.jsonl import read_groups
from evenhand.errors import UserError
from evenhand.types import Group

HELD_OUT = "heldout_"
FURTHER = "splits/"
"""Begins the role of the input that holds a further split."""


def read_split(inputs: Mapping[str, Path], split: str) -> list[Group]:
    """A split of the experiment's data; an `annotate` stage's preferences take the place of the data's own.

    `revised` and `revised_pairs` come from a `revise` stage, a further split from a stage of its own. Reward models for judging
    are tested on the same held-out pairs.
    """
    split = f"{HELD_OUT}preferences" if split == f"{HELD_OUT}{FOR_JUDGES}" else split
    made = "preferences" in inputs and split in ("preferences", f"{HELD_OUT}preferences")
    source = inputs["preferences"] if made else inputs["data"]
    source = inputs.get("revisions", source) if split.removeprefix(HELD_OUT).startswith("revised") else source
    source = inputs.get(f"{FURTHER}{split.removeprefix(HELD_OUT)}", source)
    path = source / f"{split}.jsonl"
    if not path.exists():
        raise UserError(f"the data has no split '{split}'", where="data", fix=f"add `{split}:` to the `data:` section")
    return read_groups(path)


def groups_of(
    inputs: Mapping[str, Path], split: str, *, binary: bool = False, without: frozenset[str] = frozenset()
) -> list[Group]:
    """A split less the prompts whose ids are in `without`; for binary methods its pairs as labelled single answers."""
    groups = [g for g in read_split(inputs, split) if g.prompt.id not in without]
    return [single for g in groups for single in singles(g)] if binary else groups


def singles(group: Group) -> list[Group]:
    """A scored group as one labelled answer each: 1 above the group's middle, 0 below; a single answer keeps its label. One
    without a score has no label."""
    if len(group.completions) == 1:
        return [group]
    known = [(c, s) for c, s in zip(group.completions, group.scores, strict=True) if s == s]
    middle = (max(s for _, s in known) + min(s for _, s in known)) / 2 if known else 0.0
    return [replace(group, completions=(c,), scores=(float(s > middle),), parts={}) for c, s in known if s != middle]
