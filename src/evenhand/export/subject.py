"""What is exported: one trained model of a finished run, found by its name and seed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.engines.registry import DEFAULT
from evenhand.errors import UserError, did_you_mean
from evenhand.report.run_data import RunData, read_run
from evenhand.results.files import read_json
from evenhand.results.record import ArmResult
from evenhand.results.record_parts import RewardModelSummary
from evenhand.store.pointer import holds_model, model_path

META = "meta.json"
NO_CLASSIFIER = {"policy": "its reward is a difference of log-probs", "preference": "it compares two answers"}
"""How a reward model serves that is a language model, and why it has no score of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One model of a run. `folder` holds it, whole or as an adapter; `seed` None: all seeds share it; `meta`: how it was made."""

    run: RunData
    name: str
    seed: int | None
    folder: Path
    meta: Mapping[str, Any]
    is_reward_model: bool = False

    @property
    def model(self) -> Path:
        return model_path(self.folder)

    @property
    def spec(self) -> Mapping[str, Any]:
        """The resolved settings of the stage that made it; empty where the run no longer says."""
        return self.meta.get("spec") or {}

    @property
    def method(self) -> str:
        """The method that trained it; empty where the run no longer says."""
        return str(self.spec.get("method") or "")

    @property
    def effective(self) -> Mapping[str, Any]:
        """The experiment's configuration in effect."""
        return self.run.experiment.get("effective") or {}

    @property
    def lengths(self) -> Mapping[str, int]:
        """The limits the run answered under, in tokens."""
        return self.effective.get("lengths") or {"prompt": 512, "completion": 512}

    @property
    def engine(self) -> str | Mapping[str, Any]:
        """What sampled the run's answers."""
        return self.effective.get("engine") or DEFAULT

    @property
    def result(self) -> ArmResult:
        """What the run found of it as an arm; empty for a reward model."""
        return ArmResult() if self.is_reward_model else self.run.results.arms.get(self.name, ArmResult())

    @property
    def summary(self) -> RewardModelSummary:
        """What the run found of it as a reward model; empty for an arm."""
        empty = RewardModelSummary()
        return self.run.results.reward_models.get(self.name, empty) if self.is_reward_model else empty

    @property
    def title(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.run.results.name or self.run.folder.resolve().name}: {self.name}{seed}"

    def of_seed(self, values: Sequence[float | None]) -> float | None:
        """This seed's entry of a list that follows the run's seeds (`per_seed`, `gold_per_seed`)."""
        seeds = self.run.results.seeds
        return values[seeds.index(self.seed)] if self.seed in seeds and len(values) == len(seeds) else None


def find_arm(folder: Path, name: str, seed: int | None = None) -> Subject:
    """An arm of the run in `folder`; its only seed where none is named.

    Raises UserError for an unknown arm or seed, for an arm with several seeds when none is named, and for arms that are no model
    of this run: the untouched base, or the best of n samples.
    """
    run = read_run(folder)
    known = sorted({p.name for p in folder.glob("arms/*") if p.is_dir()} | set(run.results.arms))
    if name not in known:
        raise UserError(f"no arm is called '{name}'", where=str(folder), fix=did_you_mean(name, known))
    if run.results.arms.get(name, ArmResult()).method == "best_of_n":
        raise UserError(
            f"{name} is the best of n samples of its start", where=str(folder),
            why="its weights are the start's: exported alone they would not answer as this arm was judged",
            fix="export the start's arm, and the reward model that chooses with --reward-model",
        )  # fmt: skip
    places = _by_seed(folder / "arms" / name)
    if not places:
        raise UserError(f"{name} has no model", where=str(folder / "arms" / name), fix="finish the run: `evenhand run DIR`")
    chosen = _chosen(places, seed, name)
    place = places[chosen]
    if (place / "model").is_symlink():
        raise UserError(
            f"{name} is the base model as it came", where=str(place / "model"), fix="take it from where the run took it"
        )
    shared = len(places) > 1 and seed is None
    meta = _meta(run, place, f"generations/{name}/seed-{chosen}")
    return Subject(run=run, name=name, seed=None if shared else chosen, folder=place, meta=meta)


def any_seed(folder: Path, name: str) -> Subject:
    """An arm under its first seed, where only what all seeds share is asked for."""
    places = _by_seed(folder / "arms" / name)
    return find_arm(folder, name, next(iter(places), None))


def find_reward_model(folder: Path, name: str, seed: int | None = None) -> Subject:
    """A reward model that was trained in the run; see `find_arm`. Raises UserError also for one that has no score to export."""
    run = read_run(folder)
    known = sorted(p.name for p in folder.glob("reward_models/*") if p.is_dir())
    if name not in known:
        raise UserError(f"no reward model is called '{name}'", where=str(folder), fix=did_you_mean(name, known))
    root = folder / "reward_models" / name
    places, chosen = _by_seed(root), None
    if places:
        chosen = _chosen(places, seed, name)
        root = places[chosen]
    if not holds_model(root):
        raise UserError(f"{name} was not trained here", where=str(root), fix="take it from where the run took it")
    kind = read_json(root / "reward.json").get("kind", "score") if (root / "reward.json").is_file() else "score"
    if kind in NO_CLASSIFIER:
        raise UserError(
            f"{name} has no score head", where=str(root), why=NO_CLASSIFIER[kind],
            fix="`--reward-model` exports classifiers; generate with the model itself from the run's folder",
        )  # fmt: skip
    return Subject(run=run, name=name, seed=chosen, folder=root, meta=_meta(run, root, ""), is_reward_model=True)


def node(run: RunData, name: str) -> Mapping[str, Any]:
    """A node of the run's graph as experiment.json records it; {} for an unknown one."""
    return next((n for n in run.experiment.get("nodes") or () if n["name"] == name), {})


def artifact(run: RunData, name: str) -> Path | None:
    """Where the store keeps a node's result; None if the run does not say or the store is gone."""
    key, store = node(run, name).get("key"), run.experiment.get("store")
    if not key or not store:
        return None
    path = Path(os.path.normpath(run.folder / store)) / key
    return path if path.is_dir() else None


def spec_of(run: RunData, name: str) -> Mapping[str, Any]:
    """The resolved settings of a node, from its artifact; {} if that is gone."""
    folder = artifact(run, name)
    return (read_json(folder / META).get("spec") or {}) if folder is not None and (folder / META).is_file() else {}


def _meta(run: RunData, place: Path, generated: str) -> Mapping[str, Any]:
    """How the model was made: said beside it, or by the node that the arm's answers came from."""
    if (place / META).is_file():
        return read_json(place / META)
    policy = node(run, generated).get("inputs", {}).get("policy", "")
    folder = artifact(run, policy)
    return read_json(folder / META) if folder is not None and (folder / META).is_file() else {}


def _by_seed(folder: Path) -> dict[int, Path]:
    found = {p.name.removeprefix("seed-"): p for p in folder.glob("seed-*") if holds_model(p)}
    return {int(s): found[s] for s in sorted(found, key=lambda s: (len(s), s)) if s.isdigit()}


def _chosen(places: Mapping[int, Path], seed: int | None, name: str) -> int:
    if seed is not None and seed not in places:
        raise UserError(f"{name} has no seed {seed}", where="--seed", fix=f"seeds: {', '.join(map(str, places))}")
    if seed is None and len(places) > 1 and not _same_weights(list(places.values())):
        raise UserError(
            f"{name} was trained under {len(places)} seeds, and one model is exported", where="--seed",
            why="which one must not depend on how it did: the best of several seeds would be sold as the method",
            fix=f"name one before looking: --seed {next(iter(places))} (there are {', '.join(map(str, places))})",
        )  # fmt: skip
    return next(iter(places)) if seed is None else seed


def _same_weights(places: Sequence[Path]) -> bool:
    """Whether the folders show one artifact (an arm that is a shared stage as it is)."""
    files = [sorted(model_path(p).glob("*.safetensors")) for p in places]
    return all(len(f) == len(files[0]) and all(map(os.path.samefile, f, files[0])) for f in files)
