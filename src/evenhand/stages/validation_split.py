"""Prompts for tuning, taken out of everything that is trained on: the comparison's data without them, and the split of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from evenhand.data.config import TRAINED
from evenhand.data.jsonl import read_groups, write_groups
from evenhand.errors import UserError
from evenhand.seeding import keyed
from evenhand.stages.context import StageContext
from evenhand.stages.data import bare, unique_prompts
from evenhand.store.whole import link, write_json
from evenhand.types import Group, content_id

SPLIT = "validation_prompts"
FILE = "apart.json"
"""How many prompts are set apart, and one name for all of them: equal names, equal prompts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationSplitSpec:
    """The input `data` less `prompts` prompts, and those."""

    KIND: ClassVar[str] = "validation_split"
    VERSION: ClassVar[int] = 1

    prompts: int


def run(spec: ValidationSplitSpec, context: StageContext) -> None:
    source, out = context.inputs["data"], context.out
    splits = {name: read_groups(path) for name in TRAINED if (path := source / f"{name}.jsonl").exists()}
    chosen = choose(splits, read_groups(source / "heldout_prompts.jsonl"), spec.prompts)
    names = {content_id(g.prompt.content) for g in chosen}
    for path in sorted(source.glob("*.json*")):
        if path.stem not in splits and path.name != "meta.json":
            link(path, out / path.name)
    for split, groups in splits.items():
        write_groups(out / f"{split}.jsonl", [g for g in groups if content_id(g.prompt.content) not in names])
    write_groups(out / f"{SPLIT}.jsonl", chosen)
    write_json(out / FILE, {"prompts": len(chosen), "name": f"{keyed(*sorted(names)):016x}"})


def choose(splits: Mapping[str, Sequence[Group]], heldout: Sequence[Group], count: int) -> list[Group]:
    """`count` prompts of the first split that there is, the same for every seed, none of them held out; without answers.

    What decides is a prompt's content: one that stands in several files, or under several names, is one prompt.
    """
    kept_out = {content_id(g.prompt.content) for g in heldout}
    source = next((splits[name] for name in TRAINED if splits.get(name)), ())
    names = {content_id(g.prompt.content): g for g in reversed(source)}
    candidates = sorted(names.keys() - kept_out, key=lambda name: keyed("tuning", name))
    if 2 * count > len(candidates):
        raise UserError(
            f"tuning asks for {count} of {len(candidates)} prompts", where="tune.prompts",
            why="at least half of them must be left to learn from", fix=f"use at most {len(candidates) // 2}",
        )  # fmt: skip
    return bare(unique_prompts([names[name] for name in candidates[:count]]))
