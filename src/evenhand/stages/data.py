"""The data of an experiment as one artifact: a JSONL file per split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from evenhand.data.config import FOR_JUDGES, TRAINED, DataConfig
from evenhand.data.jsonl import write_groups
from evenhand.errors import UserError
from evenhand.seeding import keyed
from evenhand.stages.context import StageContext
from evenhand.store.whole import write_json
from evenhand.types import Group, Prompt

DEFAULT_SIZES = {"demonstrations": 2000, "preferences": 2000, "prompts": 2000, "heldout_preferences": 500, "heldout_prompts": 500}
COMPARISON = "data.heldout_prompts"
"""Where the file says which prompts the comparison asks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec:
    """The splits of `source`; of a built-in world also `corpus` documents. `only` names the splits that are made, () all.

    `heldout_for` is the place in the file that asks the held-out prompts, which must not be empty then. `fingerprints` are those
    of the local files of a split; `world_version` is raised when a world's data change.
    """

    KIND: ClassVar[str] = "data"
    VERSION: ClassVar[int] = 2

    source: DataConfig
    corpus: int = 0
    only: tuple[str, ...] = ()
    fingerprints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    world_version: int | None = None
    heldout_for: str = field(default="", metadata={"decides": False})


def run(spec: DataSpec, context: StageContext) -> None:
    splits, said = (
        from_world(spec, context.seed)
        if spec.source.world
        else from_sources(spec.source, context.seed, heldout_at=spec.heldout_for or COMPARISON)
    )
    if spec.heldout_for and not splits["heldout_prompts"]:
        raise nothing_held_out()
    for n, (name, groups) in enumerate(splits.items()):
        context.report(n, len(splits), split=name)
        write_groups(context.out / f"{name}.jsonl", groups)
    write_json(context.out / "description.json", {"splits": {k: len(v) for k, v in splits.items()}, "sources": said})


def nothing_held_out() -> UserError:
    """What a comparison is told that would ask nothing. A source without usable rows has its own message."""
    return UserError(
        "no prompts are held out", where=COMPARISON, why="arms are compared by answers to prompts that none has learned from",
        fix="name `data.heldout_prompts`, raise `data.holdout`, or give more rows to set some apart from",
    )  # fmt: skip


def from_world(spec: DataSpec, seed: int) -> tuple[dict[str, list[Group]], list[str]]:
    """The splits of a built-in world, at the sizes asked for. A longer one begins like a shorter one."""
    from evenhand import worlds

    config = spec.source
    assert config.world is not None
    world = worlds.with_annotator(worlds.get(config.world, **config.options), **config.annotator)
    sizes = {**DEFAULT_SIZES, **config.sizes, "corpus": spec.corpus}
    made: dict[str, Callable[[int], list[Group]]] = {
        "demonstrations": lambda n: world.demonstrations(seed, n),
        "preferences": lambda n: world.preferences(seed, n),
        "prompts": lambda n: bare(world.prompts(seed, n)),
        "heldout_preferences": lambda n: world.preferences(seed, n, split="heldout"),
        "heldout_prompts": lambda n: bare(world.prompts(seed, n, split="heldout")),
        "corpus": lambda n: world.corpus(seed, n),
    }
    wanted = spec.only or tuple(name for name in made if name != "corpus" or spec.corpus)
    splits = for_judges({name: made[name](sizes[name]) for name in wanted}, config.judge_share, seed)
    return splits, [f"built-in world {config.world}, version {world.version}"]


def from_sources(config: DataConfig, seed: int, *, heldout_at: str = COMPARISON) -> tuple[dict[str, list[Group]], list[str]]:
    """Every named source, and held-out splits set apart where none is named.

    `heldout_at` is the place in the file that names the held-out prompts. A prompt's side depends on its id alone, so that what
    is held out of one split is held out of all.
    """
    from evenhand.data.convert import holdout
    from evenhand.data.load import load

    splits: dict[str, list[Group]] = {}
    said = []
    for name, source in config.sources.items():
        loaded = load(source, where=heldout_at if name == "heldout_prompts" else f"data.{name}")
        splits[name] = loaded.groups
        said.append(f"{name}: {loaded.description}")
    held: dict[str, list[Group]] = {}
    for name in TRAINED:
        if name in splits and f"heldout_{name}" not in splits:
            splits[name], held[name] = holdout(splits[name], config.holdout, seed)
    if "preferences" in held:
        splits["heldout_preferences"] = held["preferences"]
    splits = for_judges(splits, config.judge_share, seed)
    splits.setdefault("prompts", first(splits, TRAINED))
    splits.setdefault("heldout_prompts", first(held, TRAINED))
    for name in ("prompts", "heldout_prompts"):
        splits[name] = bare(unique_prompts(splits[name]))
    return splits, said


def for_judges(splits: dict[str, list[Group]], share: float, seed: int) -> dict[str, list[Group]]:
    """The same splits, with about `share` of the preferences' prompts and all their pairs in a split of their own."""
    from evenhand.data.convert import holdout

    if not share or "preferences" not in splits:
        return splits
    kept, apart = holdout(splits["preferences"], share, keyed(seed, "judges"))
    return {**splits, "preferences": kept, FOR_JUDGES: apart}


def first(splits: Mapping[str, list[Group]], names: Sequence[str]) -> list[Group]:
    """The first of the named splits that there is."""
    return next((splits[name] for name in names if splits.get(name)), [])


def bare(prompts: list[Prompt]) -> list[Group]:
    """Prompts waiting for rollouts, as groups without completions."""
    return [Group(prompt=p, completions=()) for p in prompts]


def unique_prompts(groups: list[Group]) -> list[Prompt]:
    """Each prompt once, in order."""
    return list({g.prompt.id: g.prompt for g in groups}.values())
