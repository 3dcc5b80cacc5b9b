"""What an experiment file may say. The dataclasses are the schema; every field has its default here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from evenhand.errors import UserError, did_you_mean
from evenhand.experiment.schema import from_signature
from evenhand.methods import METHODS, Method, build

START = "start"
"""The method of an arm that is the starting policy itself, untouched."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Limits in tokens. Prompts keep their end, completions their beginning."""

    prompt: int = 512
    completion: int = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Budget and optimizer: `steps` or `epochs`; `learning_rate` defaults to the method's; `warmup` is a share of the steps."""

    steps: int | None = None
    epochs: float | None = None
    prompts_per_step: int = 32
    learning_rate: float | None = None
    schedule: str = "cosine"
    schedule_parameters: Mapping[str, float] = field(default_factory=dict)
    warmup: float = 0.03
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 1.0
    tokens_per_microbatch: int = 8192
    gradient_checkpointing: bool = False
    checkpoint_every: int = 50
    evaluate_every: int = 0
    sample_every: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How completions are sampled. `temperature` 0 is greedy; `top_p` 1 and `top_k` 0 are off."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrain:
    """Train the world's own small model from scratch on `documents` texts of its corpus."""

    documents: int = 4000
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The base model: a folder or hub name (`path`), or a built-in world's own model, pretrained here (`pretrain`)."""

    path: str | None = None
    pretrain: Pretrain | None = None
    dtype: str = "auto"
    template: str | None = None
    revision: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where rows come from: a built-in `world` with `sizes`, or a source per split (a path, a hub name, or a mapping).

    `holdout` is the share of prompts (and pairs) set apart for evaluation when no held-out split is named.
    """

    world: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    demonstrations: str | Mapping[str, Any] | None = None
    preferences: str | Mapping[str, Any] | None = None
    prompts: str | Mapping[str, Any] | None = None
    heldout_preferences: str | Mapping[str, Any] | None = None
    heldout_prompts: str | Mapping[str, Any] | None = None
    holdout: float = 0.1
    seed: int = 0
    supervise: str = "completion"


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotate:
    """Make preference pairs: sample from the starting policy, let `reward` compare, label with Bradley-Terry noise.

    `noise` is the annotator's temperature in units of the reward; `flip` swaps that share of labels; `bias_per_word` is what a
    longer answer gains in its eyes.
    """

    reward: str | Mapping[str, Any]
    noise: float = 0.1
    flip: float = 0.0
    bias_per_word: float = 0.0
    prompts: int = 1000
    heldout_prompts: int = 200
    completions_per_prompt: int = 2
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """Who compares two answers: a program or a reward model scores both, the higher wins, `tie` apart is a tie."""

    reward: str | Mapping[str, Any] = "gold"
    tie: float = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The held-out comparison: how many prompts, sampled how."""

    prompts: int = 200
    sampling: SamplingConfig = SamplingConfig()


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """How work is spread: `workers` processes of `threads` threads each, on `device`. Threads are part of the result's bytes.

    `store` is a folder of artifacts to share between experiments; by default each run directory has its own.
    """

    workers: int = 2
    threads: int = 1
    device: str = "auto"
    store: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One line of the comparison, checked: its method, parameters, training and signal."""

    name: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    train: Train = Train()
    start: str = "sft"
    reward: str | Mapping[str, Any] | None = None
    sampling: SamplingConfig = SamplingConfig()
    per_seed: bool = True
    data: str | None = None

    def build(self, *, steps: int, max_tokens: int) -> Method:
        """The method with its parameters; `steps` and `max_tokens` are the experiment's, where the method asks for them."""
        return build(self.method, self.parameters, steps=steps, max_tokens=max_tokens)


ARM_KEYS = ("method", "train", "start", "reward", "sampling", "per_seed", "data")
INJECTED = ("steps", "max_tokens")


def parse_arm(name: str, raw: Mapping[str, Any], *, where: str, train: Mapping[str, Any], defaults: Mapping[str, Any]) -> Arm:
    """A raw arm, checked. Keys that are not an arm's own are the method's parameters; shared `train` values come first."""
    raw = {**defaults, **raw}
    kind = raw.get("method")
    if kind is None:
        raise UserError("'method' is missing", where=where, fix=f"add `method:`; {did_you_mean('', METHODS)}")
    if kind != START and kind not in METHODS:
        raise UserError(f"unknown method '{kind}'", where=f"{where}.method", fix=did_you_mean(str(kind), [*METHODS, START]))
    own = {k: v for k, v in raw.items() if k in ARM_KEYS}
    rest = {k: v for k, v in raw.items() if k not in ARM_KEYS}
    if kind == START:
        if rest:
            key = next(iter(rest))
            raise UserError(f"unknown key '{key}'", where=f"{where}.{key}", fix="the method `start` has no parameters")
        parameters: dict[str, Any] = {}
    else:
        parameters = from_signature(METHODS[kind], rest, where, skip=INJECTED)
    own["train"] = Train(**from_signature(Train, {**train, **own.get("train", {})}, f"{where}.train"))
    own["sampling"] = SamplingConfig(**from_signature(SamplingConfig, own.get("sampling", {}), f"{where}.sampling"))
    checked = from_signature(Arm, {"name": name, **own, "parameters": parameters}, where)
    return Arm(**checked)


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One experiment file, in full. `train` and `sampling` hold for every arm; an arm names only what differs."""

    name: str
    description: str = ""
    seeds: tuple[int, ...] = (0,)
    baseline: str = ""
    model: ModelConfig
    data: DataConfig
    lengths: Lengths = Lengths()
    start: str = "sft"
    sft: Mapping[str, Any] | None = None
    annotate: Annotate | None = None
    reward_models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rewards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]]
    judge: Judge = Judge()
    evaluation: Evaluation = Evaluation()
    runtime: Runtime = Runtime()

    def all_arms(self) -> dict[str, Arm]:
        """The arms in order, checked."""
        return {n: self._arm(n, raw, f"arms.{n}", {"start": self.start}) for n, raw in self.arms.items()}

    def all_reward_models(self) -> dict[str, Arm]:
        """The reward models, as arms of the method `reward_model`."""
        defaults = {"method": "reward_model", "start": self.start}
        return {n: self._arm(n, raw, f"reward_models.{n}", defaults, shared=False) for n, raw in self.reward_models.items()}

    def sft_arm(self) -> Arm | None:
        """The shared supervised stage, trained once from the base model unless `per_seed: true`."""
        if self.sft is None:
            return None
        return self._arm("sft", self.sft, "sft", {"method": "sft", "start": "base", "per_seed": False}, shared=False)

    def pretrain_arm(self) -> Arm | None:
        """Pretraining of a world's own model, as an arm of the method `sft` on its corpus."""
        if self.model.pretrain is None:
            return None
        raw = {"method": "sft", "start": "", "per_seed": False, "data": "corpus", "train": self.model.pretrain.train}
        return self._arm("base", raw, "model.pretrain", {}, shared=False)

    def _arm(self, name: str, raw: Mapping[str, Any], where: str, defaults: Mapping[str, Any], *, shared: bool = True) -> Arm:
        train = self.train if shared else {}
        raw = {**raw, "sampling": {**self.sampling, **raw.get("sampling", {})}}
        return parse_arm(name, raw, where=where, train=train, defaults=defaults)

    def stages(self) -> set[str]:
        """What an arm may start from besides other arms; these names always mean the stage."""
        return {"base"} | ({"sft"} if self.sft is not None else set())

    @property
    def baseline_arm(self) -> str:
        """The arm every other is compared with: `baseline`, or the first."""
        return self.baseline or next(iter(self.arms))

    def problems(self) -> Iterator[UserError]:
        """Every fault that needs no device to find."""
        yield from self._structure()
        arms: dict[str, Arm] = {}
        for group in (self.all_arms, self.all_reward_models):
            try:
                arms |= group()
            except UserError as error:
                yield error
        for make in (self.sft_arm, self.pretrain_arm):
            try:
                make()
            except UserError as error:
                yield error
        for name, arm in arms.items():
            section = "reward_models" if name in self.reward_models else "arms"
            yield from self._arm_problems(arm, f"{section}.{name}")

    def _structure(self) -> Iterator[UserError]:
        if not self.arms:
            yield UserError("an experiment needs at least one arm", where="arms", fix="add e.g. `dpo: {method: dpo}`")
        if self.arms and self.baseline_arm not in self.arms:
            yield UserError(f"no arm is called '{self.baseline}'", where="baseline", fix=did_you_mean(self.baseline, self.arms))
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            yield UserError(f"seeds must be different and at least one, got {list(self.seeds)}", where="seeds")
        if (self.model.path is None) == (self.model.pretrain is None):
            yield UserError("name either `path` or `pretrain`", where="model", fix="a folder or hub name, or a world's own model")
        if self.model.pretrain is not None and self.data.world is None:
            yield UserError(
                "`pretrain` needs a built-in world", where="model.pretrain", fix="add `data.world`, or give `model.path`"
            )
        if self.data.world is None and not any(getattr(self.data, s) for s in SPLITS):
            yield UserError("no data is named", where="data", fix="name a `world`, or `preferences:`, `prompts:`, ...")
        yield from reward_problem(self.judge.reward, self, "judge.reward")
        if self.annotate is not None:
            yield from reward_problem(self.annotate.reward, self, "annotate.reward")
        if self.start == "sft" and self.sft is None:
            yield UserError("`start: sft` but there is no `sft:` section", where="start", fix="add `sft:`, or `start: base`")

    def _arm_problems(self, arm: Arm, where: str) -> Iterator[UserError]:
        known = self.stages() | (set(self.arms) - {arm.name})
        if arm.start not in known:
            yield UserError(f"cannot start from '{arm.start}'", where=f"{where}.start", fix=did_you_mean(arm.start, known))
        if arm.method == START:
            return
        method = arm.build(steps=1, max_tokens=self.lengths.completion)
        missing = method.objective.needs - method.provides
        if missing:
            yield UserError(f"{arm.method} needs {', '.join(sorted(missing))}, which nothing provides", where=where)
        if (arm.train.steps is None) == (arm.train.epochs is None):
            yield UserError("name either `steps` or `epochs`", where=f"{where}.train")
        if method.online and arm.reward is None:
            yield UserError(
                f"{arm.method} samples and needs a reward", where=where, fix="add `reward:` (a reward model's name, ...)"
            )
        if not method.online and arm.reward is not None:
            yield UserError(
                f"{arm.method} learns from fixed data; a reward has no effect", where=f"{where}.reward", fix="remove it"
            )
        if arm.reward is not None:
            yield from reward_problem(arm.reward, self, f"{where}.reward")


def resolved_reward(reward: Any, experiment: Experiment) -> Any:
    """A reward with the experiment's own names replaced by what they stand for, at any depth; None stays None."""
    if isinstance(reward, str):
        if reward in experiment.rewards:
            return resolved_reward(experiment.rewards[reward], experiment)
        if reward in experiment.reward_models:
            return {"kind": "model", "name": reward}
        return {"kind": reward} | ({"world": experiment.data.world} if reward == "gold" else {})
    if isinstance(reward, Mapping):
        nested = {"reward": resolved_reward, "parts": _resolved_list, "members": _resolved_list}
        return {k: nested[k](v, experiment) if k in nested else v for k, v in reward.items()}
    return reward


def _resolved_list(rewards: Any, experiment: Experiment) -> Any:
    return [resolved_reward(r, experiment) for r in rewards] if isinstance(rewards, list | tuple) else rewards


def models_in(reward: Any) -> set[str]:
    """Names of the trained reward models inside a resolved reward."""
    if isinstance(reward, Mapping):
        own = {reward["name"]} if reward.get("kind") == "model" and "name" in reward else set()
        return own.union(*(models_in(v) for v in reward.values()))
    return set().union(*(models_in(r) for r in reward)) if isinstance(reward, list | tuple) else set()


def reward_problem(reward: Any, experiment: Experiment, where: str) -> Iterator[UserError]:
    """The fault of a reward, if it has one: built once with stand-ins for the models that are not trained yet."""
    from evenhand import rewards

    if reward == "gold" and experiment.data.world is None:
        yield UserError("`gold` is the reward of a built-in world", where=where, fix="name `data.world`, or another reward")
        return
    stand_ins: dict[str, Any] = {name: (lambda groups: []) for name in experiment.reward_models}
    try:
        rewards.get(resolved_reward(reward, experiment), stand_ins, where=where)
    except UserError as error:
        yield error


SPLITS = ("demonstrations", "preferences", "prompts", "heldout_preferences", "heldout_prompts")


def held_equal(experiment: Experiment) -> list[str]:
    """What every arm has in common, in words."""
    e, sampling = experiment, experiment.evaluation.sampling
    start = f"Every arm starts from the same `{e.start}` weights" if e.start != "base" else "Every arm starts from the base model"
    truncated = "" if sampling.top_p == 1 and sampling.top_k == 0 else f", top-p {sampling.top_p:g}, top-k {sampling.top_k}"
    return [
        f"{start}, with one tokenizer and one template, and draws its training rows from one data set in the order of its seed.",
        f"Prompts keep {e.lengths.prompt} tokens and answers {e.lengths.completion}, in training and in the comparison.",
        f"All answer the same {e.evaluation.prompts} held-out prompts, with one sampler at temperature {sampling.temperature:g}"
        f"{truncated} and the same random numbers per prompt and seed.",
        "One judge scores all answers without knowing whose they are.",
    ]


def deviations(experiment: Experiment) -> list[str]:
    """What is not held equal between trained arms, in words: training settings, start and reward that differ."""
    arms = [a for a in experiment.all_arms().values() if a.method != START]
    out = []
    for f in fields(Train):
        if f.name in ("tokens_per_microbatch", "gradient_checkpointing", "checkpoint_every", "evaluate_every", "sample_every"):
            continue
        values = {a.name: getattr(a.train, f.name) for a in arms}
        if f.name == "learning_rate":
            values = {a.name: learning_rate(a, experiment) for a in arms}
        if len({repr(v) for v in values.values()}) > 1:
            out.append(f"train.{f.name}: " + ", ".join(f"{n} {v}" for n, v in values.items()))
    for name in ("start", "sampling"):
        values = {a.name: getattr(a, name) for a in arms}
        if len({repr(v) for v in values.values()}) > 1:
            out.append(f"{name}: " + ", ".join(f"{n} {v}" for n, v in values.items()))
    return out


def learning_rate(arm: Arm, experiment: Experiment) -> float:
    """The arm's learning rate: its own, or its method's default."""
    if arm.train.learning_rate is not None:
        return arm.train.learning_rate
    return arm.build(steps=1, max_tokens=experiment.lengths.completion).learning_rate


__all__ = [
    "INJECTED", "SPLITS", "START", "Annotate", "Arm", "DataConfig", "Evaluation", "Experiment", "Judge", "Lengths", "ModelConfig",
    "Pretrain", "Runtime", "SamplingConfig", "Train", "deviations", "learning_rate", "parse_arm", "replace",
]  # fmt: skip
