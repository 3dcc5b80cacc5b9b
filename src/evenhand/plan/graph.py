"""The graph of stages while it is built: a node per distinct stage, and what every kind of stage needs to name its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evenhand.engines.registry import access, decides
from evenhand.judges import template
from evenhand.judges.config import LLM, Human, OwnJudge, Settings
from evenhand.methods import PREFERENCES
from evenhand.models.load import resolve_device
from evenhand.plugins import used
from evenhand.registry import revisions
from evenhand.rewards.function import fingerprint_of, without_folder
from evenhand.spec.experiment import Experiment
from evenhand.spec.reward_resolution import functions_in, judges_in, models_in, resolved_reward
from evenhand.stages.context import StageSpec
from evenhand.stages.judge import JudgedBy
from evenhand.stages.setup import Compute, Setup
from evenhand.stages.splits import FURTHER
from evenhand.store.fingerprint import decisive, file_fingerprint, model_fingerprint, stage_key
from evenhand.synthesis.config import REVISED
from evenhand.train.config import Lengths

SHARED = "shared"
BySeed = Mapping[str, Mapping[int, str]]
"""arm -> seed -> node."""
HELDOUT = "heldout_prompts"
"""The split that the comparison asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One stage of the graph, its inputs by role. `key` is determined by spec, seed and the keys of the inputs.

    `after` are nodes that must have succeeded first, though nothing of theirs is read: they decide whether, not what.
    """

    name: str
    spec: StageSpec
    inputs: Mapping[str, str]
    seed: int
    row: str
    column: str
    key: str
    cost: str
    after: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.spec.KIND

    @property
    def needs(self) -> tuple[str, ...]:
        """Every node that must have succeeded before this one starts."""
        return (*self.inputs.values(), *self.after)


@dataclass(frozen=True, slots=True)
class Questions:
    """The prompts that arms answer: the first `count` of a split."""

    split: str
    count: int


class Graph:
    """Nodes in topological order. `models` says which node holds the model of a stage or arm for a seed.

    `questions` are the comparison's held-out prompts unless others are named. `data` is the node that holds the data, `asked` the
    one that holds the questions: training never reads more of the latter than its own first few. `prefix` begins the places of
    what is asked and judged: a view of the graph for another evaluation has one.
    """

    def __init__(self, experiment: Experiment, questions: Questions | None = None) -> None:
        self.e = experiment
        self.prefix = ""
        self.questions = questions or Questions(HELDOUT, experiment.evaluation.prompts)
        self.data = self.asked = "data"
        self.arms = experiment.all_arms()
        self.nodes: dict[str, Node] = {}
        self.models: dict[tuple[str, int], str] = {}
        self._by_key: dict[str, str] = {}
        self.setup = Setup(compute=compute(experiment), lengths=experiment.lengths, template=experiment.model.template)

    def add(
        self,
        name: str,
        spec: StageSpec,
        inputs: Mapping[str, str],
        *,
        seed: int = 0,
        row: str,
        column: str = SHARED,
        cost: str,
        runs: Any = None,
        code: Mapping[str, str] | None = None,
        after: tuple[str, ...] = (),
    ) -> str:
        """Adds a node, or finds the one with the same key: equal stages are one stage.

        The source of what a user wrote, as far as the spec names it or the stage `runs` it besides, is in the key; so
        are its revision and that of what is ours, and `code`.
        """
        keys = {role: self.nodes[other].key for role, other in inputs.items()}
        settled = decisive(spec)
        code = {**reward_code(settled), **used([spec, runs]), **revisions([spec, runs]), **(code or {})}
        key = stage_key(spec.KIND, spec.VERSION, without_folders_of(settled), seed, keys, code)
        if key in self._by_key:
            return self._by_key[key]
        if name in self.nodes:  # another stage has it, e.g. reference log-probs under other limits
            name = f"{name}-{key[:8]}"
        self.nodes[name] = Node(
            name=name, spec=spec, inputs=dict(inputs), seed=seed, row=row, column=column, key=key, cost=cost, after=after,
        )  # fmt: skip
        self._by_key[key] = name
        return name

    def setup_for(self, *, lengths: Lengths | None = None, tokens_per_microbatch: int | None = None) -> Setup:
        """How a stage opens models, under limits of its own."""
        own = self.setup if lengths is None else replace(self.setup, lengths=lengths)
        return own if tokens_per_microbatch is None else replace(own, tokens_per_microbatch=tokens_per_microbatch)

    def setup_for_training(self, lengths: Lengths) -> Setup:
        """The same for a stage that trains, on all of the experiment's ranks."""
        own, runtime = self.setup_for(lengths=lengths), self.e.runtime
        if runtime.ranks == 1:
            return own
        return replace(own, compute=replace(own.compute, world_size=runtime.ranks, shard=runtime.shard))

    def data_inputs(self, split: str | None = None) -> dict[str, str]:
        """The data, and the preference pairs made here if there are any; for a split of revisions or a further one, those."""
        made = {"revisions": "revisions"} if split in REVISED else {}
        made |= {f"{FURTHER}{split}": f"{FURTHER}{split}"} if split in self.e.splits else {}
        return {"data": self.data} | ({"preferences": "preferences"} if "preferences" in self.nodes else {}) | made

    def split_inputs(self, split: str) -> dict[str, str]:
        """The data, and where a split was made here, what made it: nothing that the split does not depend on."""
        made = self.data_inputs(split.removeprefix("heldout_"))
        return made if split.endswith(PREFERENCES) else {role: node for role, node in made.items() if role != "preferences"}

    def reward_spec(self, reward: str | Mapping[str, Any]) -> Mapping[str, Any]:
        """A reward as a self-contained mapping: names of this experiment are resolved, at any depth."""
        return resolved_reward(reward, self.e)

    def reward_inputs(self, reward: str | Mapping[str, Any], seed: int) -> dict[str, str]:
        """The reward models a reward needs, as inputs under the role `reward_models/NAME`."""
        names = sorted(models_in(self.reward_spec(reward)))
        return {role: node for name in names for role, node in self.model_inputs(name, seed).items()}

    def model_inputs(self, name: str, seed: int) -> dict[str, str]:
        """A reward model, and the reference that its reward is relative to."""
        own = {f"reward_models/{name}": self.models[f"reward_models/{name}", seed]}
        if not self._implied_reward(name).get("reference"):
            return own
        return own | {f"reward_references/{name}": self.models[self.e.reward_model(name).initial_policy, seed]}

    def served_as(self, name: str) -> str:
        """The kind as which a reward model serves: see `Method.implied_reward`."""
        return str(self._implied_reward(name).get("kind"))

    def _implied_reward(self, name: str) -> Mapping[str, Any]:
        """How a reward model serves; one that exists already is of its kind, and needs nothing beside it."""
        if (adopted := self.e.all_adopted().get(name)) is not None:
            return {"kind": adopted.kind}
        return self.e.reward_model(name).build().implied_reward or {}


def of_every_arm(graph: Graph, made: Callable[[str, int], str]) -> dict[str, dict[int, str]]:
    """The node that `made(arm, seed)` gives, by arm and seed: a seed of all arms before the next one, so that a run that is
    stopped has something to compare."""
    found: dict[str, dict[int, str]] = {name: {} for name in graph.e.arms}
    for seed in graph.e.seeds:
        for name in graph.e.arms:
            found[name][seed] = made(name, seed)
    return found


def function_names(settled: Any) -> dict[str, tuple[str, str]]:
    """Path -> (its name in a key, the fingerprint of its source), of the user's functions: where a file is decides nothing."""
    names: dict[str, tuple[str, str]] = {}
    for path in functions_in(settled):
        if path in names or (found := fingerprint_of(path)) is None:
            continue
        name = without_folder(path)
        other = dict(names.values()).get(name, found)
        names[path] = (name if other == found else f"{name} {found}", found)
    return names


def without_folders_of(settled: Any) -> Any:
    """A spec with the functions in it by their names."""
    names = {path: name for path, (name, _) in function_names(settled).items()}

    def renamed(value: Any) -> Any:
        if isinstance(value, Mapping):
            inside = {key: renamed(item) for key, item in value.items()}
            own = value.get("kind") == "function" and str(value.get("path")) in names
            return inside | ({"path": names[str(value["path"])]} if own else {})
        return [renamed(item) for item in value] if isinstance(value, list | tuple) else value

    return renamed(settled) if names else settled


def reward_code(settled: Any) -> dict[str, str]:
    """Fingerprints of what the rewards inside it name: functions, and the weights and templates of judging models."""
    judges = judges_in(settled)
    models = {path: model_bytes(path) for path, _ in sorted(judges)}
    asked = sorted({name for _, name in judges})
    return (
        dict(function_names(settled).values())
        | {path: found for path, found in models.items() if found is not None}
        | {f"judge template {name}": template.get(name).sha for name in asked}
    )


def compute(experiment: Experiment) -> Compute:
    """On what stages compute here, with "auto" resolved: a laptop and an accelerator never share an artifact."""
    device, dtype = experiment.runtime.device, experiment.model.dtype
    kind = (resolve_device(device) if device == "auto" else device).split(":")[0]
    if dtype == "auto":
        dtype = "float32" if kind == "cpu" else "bfloat16"
    threads, matmul, engine = experiment.runtime.threads, experiment.model.matmul, experiment.engine
    return Compute(device=kind, dtype=dtype, threads=threads, matmul=matmul, engine=decides(engine), engine_access=access(engine))


def judged_by(settings: Settings | OwnJudge | Human) -> JudgedBy:
    """A judging model, its template and weights named by their content; a judge of the user's by its code (see `Graph.add`).

    People are named by their labels so far: other labels are other verdicts.
    """
    if isinstance(settings, Human):
        labels = Path(settings.labels).expanduser().resolve()
        known = file_fingerprint(labels) if labels.is_file() else None
        return JudgedBy(settings=replace(settings, labels=str(labels)), fingerprint=known)
    if isinstance(settings, OwnJudge):
        return JudgedBy(settings=settings)
    path = None if isinstance(settings, LLM) else settings.path
    return JudgedBy(settings=settings, template_sha=template.get(settings.template).sha, fingerprint=model_bytes(path))


def model_bytes(path: str | None) -> str | None:
    """The bytes of a local model; a hub model is named by its revision instead."""
    folder = Path(path or "").expanduser()
    return model_fingerprint(folder) if path and folder.is_dir() else None
