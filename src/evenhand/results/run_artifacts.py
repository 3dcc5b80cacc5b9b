"""What of a plan has finished, read once: verdicts and measurements by arm and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from evenhand.data.jsonl import iter_groups
from evenhand.plan.evaluation import JudgedArms
from evenhand.plan.plan import Plan
from evenhand.results.fairness import SEVERAL
from evenhand.store.store import GLANCE, Store, read_note
from evenhand.types import Group

BySeed = Mapping[str, Mapping[int, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class RunArtifacts:
    """`verdicts[arm][seed]` and `measured[arm][seed]`, for the cells that got as far as a verdict."""

    plan: Plan
    store: Store
    verdicts: BySeed
    measured: BySeed
    _seen: dict[str, str | None] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, plan: Plan, store: Store) -> RunArtifacts:
        """Everything there is by now."""
        empty = cls(plan, store, {}, {})
        done = {
            a: [s for s, node in seeds.items() if empty.has(node) and empty.has(plan.generations[a][s])]
            for a, seeds in plan.verdicts.items()
        }
        read = lambda nodes, file: {a: {s: empty.load(nodes[a][s], file) for s in seeds} for a, seeds in done.items()}  # noqa: E731
        return replace(empty, verdicts=read(plan.verdicts, "verdicts.json"), measured=read(plan.generations, "measured.json"))

    @property
    def baseline(self) -> str:
        return self.plan.experiment.baseline_arm

    @property
    def arms(self) -> list[str]:
        """The arms with a verdict, in the experiment's order."""
        return [a for a in self.plan.arms if self.verdicts[a]]

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of which any arm has a verdict."""
        return tuple(s for s in self.plan.experiment.seeds if any(s in seeds for seeds in self.verdicts.values()))

    def seeds(self, arm: str) -> tuple[int, ...]:
        """The seeds of which this arm has a verdict."""
        return tuple(s for s in self.plan.experiment.seeds if s in self.verdicts[arm])

    def by_seed(self, values: Mapping[int, Any]) -> tuple[Any, ...]:
        """Values in the order of `all_seeds`, None where there is none."""
        return tuple(values.get(s) for s in self.all_seeds)

    def table(self, arm: str, field: str, seeds: Sequence[int]) -> np.ndarray:
        """[seeds, prompts] of a field of the verdicts."""
        return np.array([self.verdicts[arm][s][field] for s in seeds], dtype=float)

    def chars(self, arm: str, seeds: Sequence[int]) -> np.ndarray:
        """[seeds, prompts]: the answers' lengths in characters."""
        return np.array([self.measured[arm][s]["chars"] for s in seeds], dtype=float)

    def has(self, node: str) -> bool:
        """Whether a node has finished and its artifact is what was made; of its large files the size is enough here."""
        return self._damage(self.plan[node].key) == ""

    def damaged(self) -> dict[str, str]:
        """Node -> message, of finished artifacts that are not what was made: whatever needs them is left out."""
        found = {n.name: (n.key, self._damage(n.key)) for n in self.plan.nodes}
        return {name: self.store.damaged_words(key, why) for name, (key, why) in found.items() if why}

    def _damage(self, key: str) -> str | None:
        """What is wrong with an artifact, "" for nothing, None for one that is not there; as it was at the first look."""
        if key not in self._seen:
            self._seen[key] = self.store.damage(key, up_to=GLANCE) if self.store.has(key) else None
        return self._seen[key]

    def load(self, node: str, file: str) -> Any:
        """A JSON file of a finished node."""
        return self.store.read_json(self.plan[node].key, file)

    def judged(self, cells: JudgedArms, measures: Sequence[str]) -> dict[str, dict[int, dict[str, Any]]]:
        """arm -> seed -> verdicts on other answers than the comparison's with measures of these, of what has finished."""
        found: dict[str, dict[int, dict[str, Any]]] = {arm: {} for arm in cells.verdicts}
        for arm, seeds in cells.verdicts.items():
            for seed, node in seeds.items():
                if self.has(node) and self.has(answers := cells.generations[arm][seed]):
                    measured = self.load(answers, "measured.json")
                    found[arm][seed] = self.load(node, "verdicts.json") | {name: measured[name] for name in measures}
        return found

    def scores(self, answers: str, seed: int) -> dict[str, list[list[float | None]] | None]:
        """[prompts][answers] of every reward model that was to score a node's answers; None of one that did not."""
        nodes = self.plan.scored.get((answers, seed), {})
        return {name: self.load(node, "scores.json")["scores"] if self.has(node) else None for name, node in nodes.items()}

    def scored_samples(self, samples: str, seed: int) -> dict[str, Any]:
        """`gold` scores and `length` of several answers per prompt, and under `proxies` those of reward models that scored."""
        known = {name: table for name, table in self.scores(samples, seed).items() if table is not None}
        return {**self.load(samples, "scores.json"), "proxies": known}

    def generations(self, arm: str, seed: int, most: int | None = None) -> list[Group]:
        """One answer per held-out prompt, or per each of the first `most`."""
        path = self.store.path(self.plan[self.plan.generations[arm][seed]].key) / "generations.jsonl"
        return list(islice(iter_groups(path), most))

    def origins(self) -> dict[str, dict[str, str]]:
        """By arm how its models, answers and verdicts were made: device, precision, engine, processor.

        Artifacts of a store that machines or installations share may differ; one that says nothing counts nowhere.
        """
        found: dict[str, dict[str, str]] = {}
        for arm in self.arms:
            each: dict[str, list[str]] = {}
            for seed in self.seeds(arm):
                nodes = (self.plan.arms[arm][seed], self.plan.generations[arm][seed], self.plan.verdicts[arm][seed])
                for aspect, value in (item for node in nodes for item in self._origin(node).items()):
                    each.setdefault(aspect, []).append(value)
            found[arm] = {aspect: SEVERAL.join(dict.fromkeys(values)) for aspect, values in each.items()}
        return found

    def _origin(self, node: str) -> dict[str, str]:
        note = read_note(self.store.path(self.plan[node].key)) or {}
        compute = ((note.get("spec") or {}).get("setup") or {}).get("compute") or {}
        computed = {name: str(compute[name]) for name in ("device", "dtype", "matmul", "engine") if name in compute}
        return {**computed, **note.get("machine", {})}
