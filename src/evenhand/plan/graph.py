"""The graph of stages while it is built: a node per distinct stage, and what every kind of stage needs to name its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evenhand.judges import template
from evenhand.judges.config import HOW, Settings, decisive
from evenhand.plugins import used
from evenhand.spec.experiment import Experiment
from evenhand.spec.reward_resolution import models_in, resolved_reward
from evenhand.spec.synthetic import REVISED
from evenhand.stages import VERSIONS
from evenhand.store.fingerprint import digest, model_fingerprint

SHARED = "shared"
HELDOUT = "heldout_prompts"
"""The split that the comparison asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One stage of the graph. `key` is determined by kind, version, spec, seed and the keys of the inputs.

    What stands under "how" in a spec (an address, a number of connections) decides how the stage works, not what comes out.
    """

    name: str
    kind: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, str]
    seed: int
    row: str
    column: str
    key: str
    cost: str


@dataclass(frozen=True, slots=True)
class Questions:
    """The prompts that arms answer: the first `count` of a split."""

    split: str
    count: int


class Graph:
    """Nodes in topological order. `models` says which node holds the model of a stage or arm for a seed.

    `questions` are the comparison's held-out prompts unless others are named; `data` is the node that holds the data.
    """

    def __init__(self, experiment: Experiment, questions: Questions | None = None) -> None:
        self.e = experiment
        self.questions = questions or Questions(HELDOUT, experiment.evaluation.prompts)
        self.data = "data"
        self.arms = experiment.all_arms()
        self.nodes: dict[str, Node] = {}
        self.models: dict[tuple[str, int], str] = {}
        self._by_key: dict[str, str] = {}
        self.lengths = asdict(experiment.lengths)
        self.device = {
            "device": experiment.runtime.device,
            "dtype": experiment.model.dtype,
            "threads": experiment.runtime.threads,
        }
        if experiment.model.matmul is not None:  # only when set, so that artifacts made before it was known stay valid
            self.device["matmul"] = experiment.model.matmul

    def add(
        self,
        name: str,
        kind: str,
        spec: Mapping[str, Any],
        inputs: Mapping[str, str],
        seed: int,
        row: str,
        column: str,
        cost: str,
        runs: Any = None,
    ) -> str:
        """Adds a node, or finds the one with the same key: equal stages are one stage.

        The source of every plugin that the spec names, or that the stage `runs` besides, is in the key.
        """
        keys = {role: self.nodes[other].key for role, other in inputs.items()}
        decisive = {k: v for k, v in spec.items() if k != "how"}
        code = {"code": found} if (found := used([spec, runs])) else {}
        key = digest({"kind": kind, "version": VERSIONS[kind], "spec": decisive, "seed": seed, "inputs": keys, **code})
        if key in self._by_key:
            return self._by_key[key]
        if name in self.nodes:  # another stage has it, e.g. reference log-probs under other limits
            name = f"{name}-{key[:8]}"
        self.nodes[name] = Node(
            name=name, kind=kind, spec=spec, inputs=dict(inputs), seed=seed, row=row, column=column, key=key, cost=cost
        )
        self._by_key[key] = name
        return name

    def data_inputs(self, split: str | None = None) -> dict[str, str]:
        """The data, and the preference pairs made here if there are any; for a split of revisions, those."""
        made = {"revisions": "revisions"} if split in REVISED else {}
        return {"data": self.data} | ({"preferences": "preferences"} if "preferences" in self.nodes else {}) | made

    def reward_spec(self, reward: Any) -> Any:
        """A reward as a self-contained mapping: names of this experiment are resolved, at any depth."""
        return resolved_reward(reward, self.e)

    def reward_inputs(self, reward: str | Mapping[str, Any], seed: int) -> dict[str, str]:
        """The reward models a reward needs, as inputs under the role `reward_models/NAME`."""
        names = sorted(models_in(self.reward_spec(reward)))
        return {role: node for name in names for role, node in self.model_inputs(name, seed).items()}

    def model_inputs(self, name: str, seed: int) -> dict[str, str]:
        """A reward model, and the reference that its reward is relative to."""
        if name in self.e.all_adopted():
            return {f"reward_models/{name}": self.models[f"reward_models/{name}", seed]}
        arm = self.e.all_reward_models()[name]
        how = arm.build(steps=1, max_tokens=self.e.lengths.completion).implied_reward or {}
        own = {f"reward_models/{name}": self.models[f"reward_models/{name}", seed]}
        return own | ({f"reward_references/{name}": self.models[arm.start, seed]} if how.get("reference") else {})


def language_model(settings: Settings) -> dict[str, Any]:
    """A judging model as part of a spec: what it is under "judge", how it is reached under "how"."""
    given = decisive(settings)
    words = {"template_sha": template.get(settings.template).sha}
    if path := given.get("path"):
        words["fingerprint"] = model_bytes(path)
    return {"judge": {**given, **words}, "how": {k: v for k, v in asdict(settings).items() if k in HOW}}


def model_bytes(path: str | None) -> str | None:
    """The bytes of a local model; a hub model is named by its revision instead."""
    folder = Path(path or "").expanduser()
    return model_fingerprint(folder) if path and folder.is_dir() else None
