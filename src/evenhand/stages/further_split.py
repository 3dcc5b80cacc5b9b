"""A further split of the data, that an arm or a reward model names: rows of a source, or of the world told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from evenhand.data.config import DataConfig, Split
from evenhand.data.jsonl import write_groups
from evenhand.stages.context import StageContext
from evenhand.stages.data import bare
from evenhand.stages.splits import HELD_OUT
from evenhand.store.whole import write_json
from evenhand.types import Group


@dataclass(frozen=True, kw_only=True, slots=True)
class FurtherSplitSpec:
    """The split `name`, and what is held out of it; `data` says of which world, and which share is held out."""

    KIND: ClassVar[str] = "further_split"
    VERSION: ClassVar[int] = 1

    name: str
    split: Split
    data: DataConfig
    fingerprints: tuple[str, ...] = ()
    world_version: int | None = None


def run(spec: FurtherSplitSpec, context: StageContext) -> None:
    kept, held, said = rows(spec, context.seed)
    write_groups(context.out / f"{spec.name}.jsonl", kept)
    write_groups(context.out / f"{HELD_OUT}{spec.name}.jsonl", held)
    write_json(context.out / "description.json", {"splits": {spec.name: len(kept)}, "sources": [said]})


def rows(spec: FurtherSplitSpec, seed: int) -> tuple[list[Group], list[Group], str]:
    """The split, what is held out of it, and where they come from."""
    return of_world(spec, seed) if spec.split.rows else of_source(spec, seed)


def of_world(spec: FurtherSplitSpec, seed: int) -> tuple[list[Group], list[Group], str]:
    """Rows of the experiment's world, as its usual split begins, by another writer or under another annotator."""
    from evenhand import worlds

    split, data = spec.split, spec.data
    assert data.world is not None
    assert split.rows is not None
    world = worlds.get(data.world, **{**data.options, **split.options})
    world = worlds.with_annotator(world, **{**data.annotator, **split.annotator})
    made: Mapping[str, Callable[[int, int, str], list[Group]]] = {
        "demonstrations": world.demonstrations,
        "preferences": world.preferences,
        "prompts": lambda seed, n, side: bare(world.prompts(seed, n, side)),
    }
    make, held = made[split.rows], max(1, round(data.holdout * split.count))
    return make(seed, split.count, "train"), make(seed, held, "heldout"), f"built-in world {data.world}, {split.rows}"


def of_source(spec: FurtherSplitSpec, seed: int) -> tuple[list[Group], list[Group], str]:
    """Rows from elsewhere, less the prompts that the same share of any split holds out."""
    from evenhand.data.convert import holdout
    from evenhand.data.load import load

    loaded = load(spec.split.source or {}, where=f"splits.{spec.name}")
    kept, held = holdout(loaded.groups, spec.data.holdout, seed)
    return kept, held, loaded.description
