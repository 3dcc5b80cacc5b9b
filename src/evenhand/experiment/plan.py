"""From an experiment to its graph of stages, with a key for each: what is equal is shared, what differs is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evenhand.data.files import local_files
from evenhand.experiment.arms import Arm
from evenhand.experiment.config import SPLITS, Experiment, Judge
from evenhand.experiment.fairness import learning_rate
from evenhand.experiment.hashing import digest, file_fingerprint, folder_fingerprint, model_fingerprint
from evenhand.experiment.signals import models_in, resolved_reward
from evenhand.judges import template
from evenhand.judges.settings import HOW
from evenhand.stages import VERSIONS

SHARED = "shared"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Nodes in topological order, and where the arms' artifacts are: `arms[arm][seed]`, likewise generations and verdicts."""

    nodes: tuple[Node, ...]
    arms: Mapping[str, Mapping[int, str]]
    generations: Mapping[str, Mapping[int, str]]
    verdicts: Mapping[str, Mapping[int, str]]
    reward_models: Mapping[str, Mapping[int, str]]
    judge_test: str | None = None
    reward_samples: str | None = None
    frontiers: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    experiment: Experiment

    def __getitem__(self, name: str) -> Node:
        return next(n for n in self.nodes if n.name == name)


def build(experiment: Experiment) -> Plan:
    """The whole graph: data, base, sft, reward models, arms, their generations on held-out prompts, and the verdicts."""
    builder = _Builder(experiment)
    builder.data()
    builder.starts()
    for seed in experiment.seeds:
        builder.reward_models(seed)
        for arm in experiment.all_arms().values():
            builder.arm(arm, seed)
    for seed in experiment.seeds:
        for name in experiment.arms:
            builder.generation(name, seed)
    for seed in experiment.seeds:
        for name in experiment.arms:
            builder.verdict(name, seed)
    builder.self_test()
    builder.reward_samples()
    builder.frontiers()
    return builder.plan()


class _Builder:
    def __init__(self, experiment: Experiment) -> None:
        self.e = experiment
        self.nodes: dict[str, Node] = {}
        self.by_key: dict[str, str] = {}
        self.models: dict[tuple[str, int], str] = {}
        self.generations: dict[str, dict[int, str]] = {n: {} for n in experiment.arms}
        self.verdicts: dict[str, dict[int, str]] = {n: {} for n in experiment.arms}
        self.rms: dict[str, dict[int, str]] = {n: {} for n in experiment.reward_models}
        self.judge_test: str | None = None
        self.samples: str | None = None
        self.frontier: dict[str, dict[int, str]] = {}
        self.arms = experiment.all_arms()
        self.lengths = asdict(experiment.lengths)
        self.device = {
            "device": experiment.runtime.device,
            "dtype": experiment.model.dtype,
            "threads": experiment.runtime.threads,
        }

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
    ) -> str:
        """Adds a node, or finds the one with the same key: equal stages are one stage."""
        keys = {role: self.nodes[other].key for role, other in inputs.items()}
        decisive = {k: v for k, v in spec.items() if k != "how"}
        key = digest({"kind": kind, "version": VERSIONS[kind], "spec": decisive, "seed": seed, "inputs": keys})
        if key in self.by_key:
            return self.by_key[key]
        self.nodes[name] = Node(
            name=name, kind=kind, spec=spec, inputs=dict(inputs), seed=seed, row=row, column=column, key=key, cost=cost
        )
        self.by_key[key] = name
        return name

    def data(self) -> None:
        data = asdict(self.e.data)
        corpus = self.e.model.pretrain.documents if self.e.model.pretrain else 0
        spec = {**data, "corpus": corpus, "evaluation_prompts": self.e.evaluation.prompts, "fingerprints": _data_bytes(data)}
        source = f"world {self.e.data.world}" if self.e.data.world else ", ".join(s for s in SPLITS if data[s])
        self.add("data", "data", spec, {}, self.e.data.seed, "data", SHARED, source)

    def starts(self) -> None:
        pretrain = self.e.pretrain_arm()
        if pretrain is not None:
            spec = self._fit_spec(pretrain) | {"world": self.e.data.world}
            base = self.add("base", "fit", spec, {"data": "data"}, 0, "base", SHARED, self._fit_cost(pretrain))
        else:
            spec = {"path": self.e.model.path, "revision": self.e.model.revision, "fingerprint": _model_bytes(self.e.model.path)}
            base = self.add("base", "base", spec, {}, 0, "base", SHARED, str(self.e.model.path))
        sft = self.e.sft_arm()
        for seed in self.e.seeds:
            self.models["base", seed] = base
            if sft is not None:
                self.models["sft", seed] = self._fit(sft, "sft", seed)
        if self.e.annotate is not None:
            self._annotate(self.e.annotate)

    def _annotate(self, annotate: Any) -> None:
        spec = {
            **asdict(annotate),
            "reward": self._reward_spec(annotate.reward),
            "lengths": self.lengths,
            "template": self.e.model.template,
            **self.device,
        }
        start = self.models[self.e.start, self.e.seeds[0]]
        cost = f"{annotate.prompts + annotate.heldout_prompts} prompts x {annotate.completions_per_prompt}"
        self.add("preferences", "annotate", spec, {"start": start, "data": "data"}, self.e.data.seed, "preferences", SHARED, cost)

    def reward_models(self, seed: int) -> None:
        for name, arm in self.e.all_reward_models().items():
            fitted = self._fit(arm, f"reward_models/{name}", seed)
            self.models[f"reward_models/{name}", seed] = fitted
            reference = self._model_inputs(name, seed).get(f"reward_references/{name}")
            inputs = {"model": fitted, **self._data_inputs()} | ({"reference": reference} if reference else {})
            spec = {
                "lengths": self.lengths,
                "template": self.e.model.template,
                "tokens_per_microbatch": arm.train.tokens_per_microbatch,
                **self.device,
            }
            column = SHARED if not arm.per_seed else f"seed {seed}"
            evaluated = self.add(
                f"{fitted}/evaluation", "evaluate_reward_model", spec, inputs, 0, f"{name} accuracy", column, "held-out pairs"
            )
            self.rms[name][seed] = evaluated

    def arm(self, arm: Arm, seed: int) -> str:
        """The node that holds the arm's policy; arms it starts from come first."""
        if (f"arms/{arm.name}", seed) in self.models:
            return self.models[f"arms/{arm.name}", seed]
        if arm.start not in self.e.stages():
            self.models[arm.start, seed] = self.arm(self.arms[arm.start], seed)
        if not arm.trained:
            node = self.models[arm.start, seed]
        else:
            node = self._fit(arm, f"arms/{arm.name}", seed)
        self.models[f"arms/{arm.name}", seed] = node
        return node

    def _fit(self, arm: Arm, prefix: str, seed: int) -> str:
        start = self.models[arm.start, seed]
        inputs = {"start": start, **self._data_inputs()}
        method = arm.build(steps=1, max_tokens=self.e.lengths.completion)
        if method.reference == "start" and not method.online:
            inputs["reference"] = self._reference(arm, method.data, start)
        if arm.reward is not None:
            inputs |= self._reward_inputs(arm.reward, seed)
        column = f"seed {seed}" if arm.per_seed else SHARED
        name = f"{prefix}/seed-{seed}" if arm.per_seed else prefix
        return self.add(
            name, "fit", self._fit_spec(arm), inputs, seed if arm.per_seed else 0, arm.name, column, self._fit_cost(arm)
        )

    def _reference(self, arm: Arm, split: str, start: str) -> str:
        """Reference log-probs of a split under the start, computed once and shared by arms and seeds."""
        spec = {
            "split": arm.data or split, "binary": split == "binary", "lengths": self.lengths, "supervise": self.e.data.supervise,
            "template": self.e.model.template, "tokens_per_microbatch": arm.train.tokens_per_microbatch, **self.device,
        }  # fmt: skip
        return self.add(
            f"reference/{start}/{split}",
            "reference",
            spec,
            {"start": start, **self._data_inputs()},
            0,
            "reference",
            SHARED,
            "one forward pass",
        )

    def _fit_spec(self, arm: Arm) -> dict[str, Any]:
        train = asdict(arm.train)
        train["learning_rate"] = learning_rate(arm, self.e)
        return {
            "method": arm.method, "parameters": dict(arm.parameters), "train": train, "sampling": asdict(arm.sampling),
            "lengths": self.lengths, "supervise": self.e.data.supervise, "template": self.e.model.template,
            "reward": self._reward_spec(arm.reward), "data": arm.data, **self.device,
        }  # fmt: skip

    def _fit_cost(self, arm: Arm) -> str:
        budget = f"{arm.train.steps} steps" if arm.train.steps is not None else f"{arm.train.epochs:g} epochs"
        return f"{arm.method}: {budget} x {arm.train.prompts_per_step} prompts"

    def _data_inputs(self) -> dict[str, str]:
        return {"data": "data"} | ({"preferences": "preferences"} if "preferences" in self.nodes else {})

    def _reward_spec(self, reward: Any) -> Any:
        """A reward as a self-contained mapping: names of this experiment are resolved, at any depth."""
        return resolved_reward(reward, self.e)

    def _reward_inputs(self, reward: str | Mapping[str, Any], seed: int) -> dict[str, str]:
        """The reward models a reward needs, as inputs under the role `reward_models/NAME`."""
        names = sorted(models_in(self._reward_spec(reward)))
        return {role: node for name in names for role, node in self._model_inputs(name, seed).items()}

    def _model_inputs(self, name: str, seed: int) -> dict[str, str]:
        """A reward model, and the reference that its reward is relative to."""
        arm = self.e.all_reward_models()[name]
        how = arm.build(steps=1, max_tokens=self.e.lengths.completion).implied_reward or {}
        own = {f"reward_models/{name}": self.models[f"reward_models/{name}", seed]}
        return own | ({f"reward_references/{name}": self.models[arm.start, seed]} if how.get("reference") else {})

    def generation(self, name: str, seed: int) -> None:
        arm = self.arms[name]
        spec = {
            "sampling": asdict(self.e.evaluation.sampling), "prompts": self.e.evaluation.prompts, "lengths": self.lengths,
            "template": self.e.model.template, "tokens_per_microbatch": arm.train.tokens_per_microbatch, **self.device,
        }  # fmt: skip
        start = self.models[self.e.start, seed]
        inputs = {"policy": self.models[f"arms/{name}", seed], "start": start, "data": "data"}
        cost = f"{self.e.evaluation.prompts} held-out prompts"
        if arm.best_of > 1 and arm.reward is not None:
            spec |= {"best_of": arm.best_of, "reward": self._reward_spec(arm.reward)}
            inputs |= self._reward_inputs(arm.reward, seed)
            cost += f" x {arm.best_of}"
        self.generations[name][seed] = self.add(
            f"generations/{name}/seed-{seed}", "generate", spec, inputs, seed, f"{name} answers", f"seed {seed}", cost
        )

    def verdict(self, name: str, seed: int) -> None:
        names = list(self.e.reward_models)
        spec = {**self._judge_spec(), "proxies": {n: self._reward_spec(n) for n in names}}
        inputs = {"answers": self.generations[name][seed], "baseline": self.generations[self.e.baseline_arm][seed]}
        inputs |= self._judge_inputs(seed)
        for n in names:
            inputs |= self._model_inputs(n, seed)
        self.verdicts[name][seed] = self.add(
            f"verdicts/{name}/seed-{seed}", "judge", spec, inputs, seed, f"{name} verdicts", f"seed {seed}", self._judge_cost()
        )

    def self_test(self) -> None:
        """The judge on pairs whose verdict is known: answers of the data, or the baseline's where the data have none."""
        size, seed = self.e.judge.self_test, self.e.seeds[0]
        if size:
            inputs = {"data": "data", "answers": self.generations[self.e.baseline_arm][seed], **self._judge_inputs(seed)}
            spec = {**self._judge_spec(), "prompts": size}
            self.judge_test = self.add(
                "judge/self-test", "try_judge", spec, inputs, 0, "judge self-test", SHARED, f"{size} prompts"
            )

    def reward_samples(self) -> None:
        """Several answers per held-out prompt, scored by every reward model of the first seed, and by a judge that scores."""
        count, seed, names = self.e.evaluation.best_of_n, self.e.seeds[0], list(self.e.reward_models)
        if count < 2 or not names:
            return
        gold = self._reward_spec(self.e.judge.reward) if isinstance(self.e.judge, Judge) else None
        spec = {
            "proxies": {n: self._reward_spec(n) for n in names}, "gold": gold, "completions_per_prompt": count,
            "sampling": asdict(self.e.evaluation.sampling), "prompts": self.e.evaluation.prompts, "lengths": self.lengths,
            "template": self.e.model.template, **self.device,
        }  # fmt: skip
        inputs = {"start": self.models[self.e.start, seed], "data": "data", **self._judge_inputs(seed)}
        for n in names:
            inputs |= self._model_inputs(n, seed)
        cost = f"{self.e.evaluation.prompts} prompts x {count}"
        self.samples = self.add("samples/start", "sample_rewards", spec, inputs, 0, "reward samples", SHARED, cost)

    def frontiers(self) -> None:
        """For every trained arm that was sampled in training: its samples under the judge, where the judge scores."""
        if not (self.e.evaluation.frontier and isinstance(self.e.judge, Judge)):
            return
        names = list(self.e.reward_models)
        for arm in self.arms.values():
            if not (arm.trained and arm.train.sample_every):
                continue
            for seed in self.e.seeds if arm.per_seed else self.e.seeds[:1]:
                spec = {
                    "gold": self._reward_spec(self.e.judge.reward), "proxy": self._reward_spec(names[0]) if names else None,
                    "lengths": self.lengths, "template": self.e.model.template, **self.device,
                }  # fmt: skip
                inputs = {"arm": self.models[f"arms/{arm.name}", seed], "start": self.models[self.e.start, seed], "data": "data"}
                inputs |= self._judge_inputs(seed)
                inputs |= self._model_inputs(names[0], seed) if names else {}
                name = f"frontier/{arm.name}/seed-{seed}"
                self.frontier.setdefault(arm.name, {})[seed] = self.add(
                    name, "frontier", spec, inputs, 0, f"{arm.name} frontier", f"seed {seed}", "score samples of training"
                )

    def _judge_spec(self) -> dict[str, Any]:
        shared = {"lengths": self.lengths, "template": self.e.model.template, **self.device}
        judge = self.e.judge
        if isinstance(judge, Judge):
            return {"judge": self._reward_spec(judge.reward), "tie": judge.tie, **shared}
        given = {k: v for k, v in asdict(judge).items() if k not in HOW}
        words = {"template_sha": template.get(judge.template).sha}
        if path := given.get("path"):
            words["fingerprint"] = _model_bytes(path)
        return {"judge": {**given, **words}, "how": {k: v for k, v in asdict(judge).items() if k in HOW}, **shared}

    def _judge_inputs(self, seed: int) -> dict[str, str]:
        return self._reward_inputs(self.e.judge.reward, seed) if isinstance(self.e.judge, Judge) else {}

    def _judge_cost(self) -> str:
        pairs = self.e.evaluation.prompts
        return "score both answers" if isinstance(self.e.judge, Judge) else f"{pairs} pairs in both orders"

    def plan(self) -> Plan:
        arms = {n: {s: self.models[f"arms/{n}", s] for s in self.e.seeds} for n in self.e.arms}
        return Plan(
            nodes=tuple(self.nodes.values()), arms=arms, generations=self.generations, verdicts=self.verdicts,
            reward_models=self.rms, judge_test=self.judge_test, reward_samples=self.samples,
            frontiers=self.frontier, experiment=self.e,
        )  # fmt: skip


def _model_bytes(path: str | None) -> str | None:
    """The bytes of a local model; a hub model is named by its revision instead."""
    folder = Path(path or "").expanduser()
    return model_fingerprint(folder) if path and folder.is_dir() else None


def _data_bytes(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """The bytes of every local file or folder a split is read from."""
    watched = {split: local_files(data[split]) for split in SPLITS if data[split]}
    return {
        split: [folder_fingerprint(p) if p.is_dir() else file_fingerprint(p) for p in paths] for split, paths in watched.items()
    }
