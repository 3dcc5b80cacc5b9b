"""The data of an experiment as one artifact: a JSONL file per split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import write_groups
from evenhand.stages.common import write_json
from evenhand.types import Group, Prompt

TRAINED = ("prompts", "preferences", "demonstrations")
SPLITS = (*TRAINED, "heldout_preferences", "heldout_prompts")
DEFAULT_SIZES = {"demonstrations": 2000, "preferences": 2000, "prompts": 2000, "heldout_preferences": 500}


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    splits, said = from_world(spec, seed) if spec["world"] else from_sources(spec, seed)
    for n, (name, groups) in enumerate(splits.items()):
        report(n, len(splits), split=name)
        write_groups(out / f"{name}.jsonl", groups)
    write_json(out / "description.json", {"splits": {k: len(v) for k, v in splits.items()}, "sources": said})


def from_world(spec: Mapping[str, Any], seed: int) -> tuple[dict[str, list[Group]], list[str]]:
    """Every split of a built-in world, at the sizes asked for."""
    from evenhand import worlds

    world = worlds.get(spec["world"], **spec.get("options", {}))
    sizes = {**DEFAULT_SIZES, "heldout_prompts": spec["evaluation_prompts"], **spec["sizes"]}
    splits = {
        "demonstrations": world.demonstrations(seed, sizes["demonstrations"]),
        "preferences": world.preferences(seed, sizes["preferences"]),
        "prompts": bare(world.prompts(seed, sizes["prompts"])),
        "heldout_preferences": world.preferences(seed, sizes["heldout_preferences"], split="heldout"),
        "heldout_prompts": bare(world.prompts(seed, sizes["heldout_prompts"], split="heldout")),
    }
    if spec["corpus"]:
        splits["corpus"] = world.corpus(seed, spec["corpus"])
    return splits, [f"built-in world {spec['world']}, version {world.version}"]


def from_sources(spec: Mapping[str, Any], seed: int) -> tuple[dict[str, list[Group]], list[str]]:
    """Every named source, and held-out splits set apart where none is named.

    A prompt's side depends on its id alone, so that what is held out of one split is held out of all.
    """
    from evenhand.data.convert import holdout
    from evenhand.data.load import load

    splits: dict[str, list[Group]] = {}
    said = []
    for name in SPLITS:
        if spec[name]:
            loaded = load(spec[name], where=f"data.{name}")
            splits[name] = loaded.groups
            said.append(f"{name}: {loaded.description}")
    held: dict[str, list[Group]] = {}
    for name in TRAINED:
        if name in splits and f"heldout_{name}" not in splits:
            splits[name], held[name] = holdout(splits[name], spec["holdout"], seed)
    if "preferences" in held:
        splits["heldout_preferences"] = held["preferences"]
    splits.setdefault("prompts", first(splits, TRAINED))
    splits.setdefault("heldout_prompts", first(held, TRAINED))
    for name in ("prompts", "heldout_prompts"):
        splits[name] = bare(unique_prompts(splits[name]))
    return splits, said


def first(splits: Mapping[str, list[Group]], names: Sequence[str]) -> list[Group]:
    """The first of the named splits that there is."""
    return next((splits[name] for name in names if splits.get(name)), [])


def bare(prompts: list[Prompt]) -> list[Group]:
    """Prompts waiting for rollouts, as groups without completions."""
    return [Group(prompt=p, completions=()) for p in prompts]


def unique_prompts(groups: list[Group]) -> list[Prompt]:
    """Each prompt once, in order."""
    return list({g.prompt.id: replace(g.prompt) for g in groups}.values())
