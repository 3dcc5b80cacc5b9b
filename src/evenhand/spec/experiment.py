"""What an experiment file may say. The dataclasses are the schema; every field has its default here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

from evenhand import worlds
from evenhand.data.config import DataConfig, Split
from evenhand.environments.registry import chosen
from evenhand.errors import UserError
from evenhand.judges.config import Comparing
from evenhand.spec.arms import Arm, parse_arm
from evenhand.spec.evaluations import JurySettings, MoreEvaluation, ScoringJudge
from evenhand.spec.pretrained import Adopted, is_adopted, parse_adopted
from evenhand.spec.tuning import Tune, Tuned
from evenhand.synthesis.config import Annotate, Revise
from evenhand.train.config import Lengths, SamplingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrain:
    """Train the world's own small model from scratch on `documents` texts of its corpus."""

    documents: int = 4000
    """Texts of the world's corpus that it is trained on."""
    shape: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the world's own small network, in the words of transformers' configuration."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Training settings of this stage: the keys of `train`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The base model: a folder or hub name (`path`), or a built-in world's own model, pretrained here (`pretrain`).

    A `path` to an adapter (adapter_config.json) is merged into the base that it names, or into `base`. `dtype` and `matmul` hold
    in every stage: training, scoring and sampling, of policies and reward models. bfloat16 products over float32 weights are
    several times faster where the processor has them; gradients, updates and sums over the vocabulary stay in float32.
    """

    path: str | None = None
    """A model folder, an adapter's folder, or a Hub name; in place of `pretrain`."""
    base: str | None = None
    """The model that an adapter in `path` changes, where its own file does not name one that is here."""
    pretrain: Pretrain | None = None
    """Train a built-in world's own small model from scratch; in place of `path`."""
    dtype: str = "auto"
    """Precision of weights: auto (the model's own on a GPU, float32 on a CPU), float32, bfloat16 or float16."""
    matmul: Literal["float32", "bfloat16"] | None = None
    """Precision of matrix products in every stage; by default the weights' own."""
    template: str | None = None
    """Chat template of a model whose tokenizer brings none: plain, transcript, tulu or chatml."""
    revision: str | None = None
    """Which revision of a Hub model: a branch, a tag or a commit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """The seeds and held-out prompts that a study is meant to end with, before anyone looks."""

    seeds: int
    """Seeds that the study is meant to end with."""
    prompts: int
    """Held-out prompts that the study is meant to end with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The held-out comparison: how many prompts, sampled how.

    Under `length_grid` every arm is judged against the baseline's answers of the same limit; with arms trained under different
    `lengths` this is the grid of training by inference length. With `planned`, results shown before the design is complete, or
    beyond it, share one error of 5 %.
    """

    prompts: int = 200
    """Held-out prompts that every arm answers and that are judged."""
    best_of_n: int = 0
    """Answers per prompt of the starting policy that every reward model scores, for best-of-n curves; 0 is off."""
    best_of_arms: tuple[str, ...] = ()
    """Arms whose answers are scored so too, of every seed, for a curve of their own."""
    frontier: bool = True
    """Whether answers sampled in training (`train.sample_every`) are measured: their KL to the start, and a judge's score."""
    length_grid: tuple[int, ...] = ()
    """Completion limits under which every arm answers and is judged again. In tokens."""
    pass_at: tuple[int, ...] = ()
    """Of these many answers, whether one is right: pass@k of every arm, by a judge whose scores are 1 or 0."""
    pass_samples: int = 0
    """Answers per prompt that pass@k is estimated from; 0: twice the largest of `pass_at`."""
    planned: Planned | None = None
    """The design declared before anyone looks, so that looking early is paid for."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How held-out answers are sampled: the keys of `sampling`."""
    environment: str | Mapping[str, Any] | None = None
    """What answers between the turns of held-out answers, in place of the shared `environment`; none: nothing."""

    @property
    def pass_answers(self) -> int:
        """Answers per prompt behind pass@k; 0 where it is not asked for."""
        return (self.pass_samples or 2 * max(self.pass_at)) if self.pass_at else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What a stage asks of a Ray cluster; None: as many as its ranks need."""

    cpus: float | None = None
    """Processors; by default `threads` for each rank."""
    gpus: float | None = None
    """GPUs, a share too; by default one for each rank where training is on GPUs."""
    memory: float | None = None
    """Main memory, in GiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """How work is spread."""

    runner: Literal["local", "ray"] = "local"
    """What carries stages out: processes of this machine, or a Ray cluster: docs/scaling.md."""
    address: str | None = None
    """Of a Ray cluster, such as auto; by default one of this machine is begun for the run."""
    resources: Mapping[str, Resources] = field(default_factory=dict)
    """What stages ask of a Ray cluster, by kind of stage (fit, generate, judge, ...) or by arm, which goes first."""
    workers: int | None = None
    """Stages at a time, each a process; by default one per GPU, or what the processor has room for. 0: in this process."""
    threads: int = 1
    """Threads of each process; they are part of the result's bytes."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N, mps or xpu."""
    ranks: int = 1
    """Processes that train one model together, each with a GPU of its own where there are any: docs/scaling.md."""
    shard: Literal["ddp", "fsdp"] = "ddp"
    """What each of them holds: all weights (ddp), or a share of weights, gradients and moments (fsdp)."""
    store: str | None = None
    """A folder of artifacts to share between experiments; by default each run directory has its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Doctor:
    """What `evenhand doctor` lets pass."""

    waive: Mapping[str, str] = field(default_factory=dict)
    """Checks that are let pass, by id, each with the reason that the report shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One experiment file, in full. `train` and `sampling` hold for every arm; an arm names only what differs."""

    name: str
    """What the run is called: its directory is runs/ and the file's name, unless --out says otherwise."""
    description: str = ""
    """A sentence for the report."""
    plugins: tuple[str, ...] = ()
    """Files (relative to this one) and modules whose code registers what the file then names."""
    seeds: tuple[int, ...] = (0,)
    """One training run of every arm per seed."""
    baseline: str = ""
    """The arm that all others are compared with; by default the first."""
    model: ModelConfig
    """The base model that everything starts from."""
    data: DataConfig
    """Where prompts, pairs and demonstrations come from."""
    splits: Mapping[str, Split] = field(default_factory=dict)
    """Further splits of the data by name, so that data sets, writers and labellers can be arms: `data: NAME`."""
    lengths: Lengths = field(default_factory=Lengths)
    """Longest prompt and completion, for training and evaluation."""
    initial_policy: str = ""
    """What arms start from: base, sft, or another arm; by default sft where there is such a section, else base."""
    sft: Mapping[str, Any] | None = None
    """Supervised fine-tuning that arms share, from the base model, once for all seeds unless `per_seed`: the keys of an arm."""
    annotate: Annotate | None = None
    """Make preference pairs here: the starting policy answers, a reward or a judge compares."""
    revise: Revise | None = None
    """Make demonstrations and pairs here by criticism and revision."""
    reward_models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Reward models by name: trained here (the keys of an arm), or existing ones (`path`)."""
    rewards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Rewards by name, {kind: ..., ...}, for arms and judges to use."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Training settings that all arms share; an arm names what differs."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """How training samples are drawn; an arm names what differs."""
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What is compared: a mapping from a name to a method with its settings. Without any, reward models alone are trained."""
    judge: ScoringJudge | Comparing | JurySettings = field(default_factory=ScoringJudge)
    """Who compares held-out answers."""
    evaluation: Evaluation = Evaluation()
    """The held-out comparison."""
    evaluations: Mapping[str, MoreEvaluation] = field(default_factory=dict)
    """What the arms are compared on besides, by name: other prompts, other judges, tasks. One correction covers all."""
    runtime: Runtime = Runtime()
    """Processes, threads, device, store."""
    doctor: Doctor = Doctor()
    """What `evenhand doctor` shall let pass."""
    engine: str | Mapping[str, Any] = "local"
    """The sampler of every stage: local, vllm, a server, or one of a plugin's (docs/engines.md)."""
    environment: str | Mapping[str, Any] | None = None
    """What answers between the turns of an answer, {kind: ..., turns: ...}: of all arms that sample, and of held-out answers."""
    tracker: str | Mapping[str, Any] | None = None
    """Who is told every arm's metrics: lines, tensorboard, wandb, trackio, mlflow, or one of a plugin's."""
    tune: Tune | None = None
    """The budget of `evenhand tune`, the same for every arm."""
    tuned: Tuned | None = None
    """What `evenhand tune` chose; it writes this section itself."""

    def __post_init__(self) -> None:
        if not self.initial_policy:
            object.__setattr__(self, "initial_policy", "sft" if self.sft is not None else "base")

    def all_arms(self) -> dict[str, Arm]:
        """The arms in order, checked."""
        return {n: self.arm(n) for n in self.arms}

    def arm(self, name: str) -> Arm:
        """One arm, checked."""
        return self._arm(name, self.arms[name], f"arms.{name}", {"initial_policy": self.initial_policy})

    def all_reward_models(self) -> dict[str, Arm]:
        """The reward models that are trained here, as arms of the method `reward_model`."""
        return {n: self.reward_model(n) for n in self.recipes()}

    def reward_model(self, name: str) -> Arm:
        """One of them, checked."""
        defaults = {"method": "reward_model", "initial_policy": self.initial_policy}
        return self._arm(name, self.reward_models[name], f"reward_models.{name}", defaults, shared=False)

    def recipes(self) -> dict[str, Mapping[str, Any]]:
        return {n: raw for n, raw in self.reward_models.items() if not is_adopted(raw)}

    def all_adopted(self) -> dict[str, Adopted]:
        """The reward models that exist already."""
        return {n: parse_adopted(n, raw) for n, raw in self.reward_models.items() if is_adopted(raw)}

    def sft_arm(self) -> Arm | None:
        """The shared supervised stage, trained once from the base model unless `per_seed: true`."""
        if self.sft is None:
            return None
        return self._arm("sft", self.sft, "sft", {"method": "sft", "initial_policy": "base", "per_seed": False}, shared=False)

    def pretrain_arm(self) -> Arm | None:
        """Pretraining of a world's own model, as an arm of the method `sft` on its corpus."""
        if self.model.pretrain is None:
            return None
        raw = {"method": "sft", "initial_policy": "", "per_seed": False, "data": "corpus", "train": self.model.pretrain.train}
        return self._arm("base", raw, "model.pretrain", {}, shared=False)

    def trainings(self) -> dict[str, Callable[[], Arm | None]]:
        """How everything that is trained here is made and checked, by its place in the file."""
        return {
            "sft": self.sft_arm, "model.pretrain": self.pretrain_arm,
            **{f"reward_models.{n}": partial(self.reward_model, n) for n in self.recipes()},
            **{f"arms.{n}": partial(self.arm, n) for n in self.arms},
        }  # fmt: skip

    def _arm(self, name: str, raw: Mapping[str, Any], where: str, defaults: Mapping[str, Any], *, shared: bool = True) -> Arm:
        train = self.train if shared else {}
        for key in ("train", "sampling", "lengths"):
            if not isinstance(raw.get(key, {}), Mapping):
                fix = "give keys and values, or remove it to use the defaults"
                raise UserError(f"{raw[key]!r} is not valid", where=f"{where}.{key}", why="it must be a mapping", fix=fix)
        raw = {**raw, "sampling": {**self.sampling, **raw.get("sampling", {})}}
        raw["lengths"] = {**asdict(self.lengths), **raw.get("lengths", {})}
        return parse_arm(name, raw, where=where, train=train, defaults=defaults)

    def environment_of(self, arm: Arm) -> str | Mapping[str, Any] | None:
        """What answers between the turns of what an arm samples in training."""
        return chosen(arm.environment, self.environment)

    @property
    def asked_in(self) -> str | Mapping[str, Any] | None:
        """The environment of held-out answers, the same for every arm."""
        return chosen(self.evaluation.environment, self.environment)

    def network(self) -> dict[str, Any]:
        """The transformers config, as a dict, of the world's own model that is pretrained here; no vocabulary size."""
        own = self.model.pretrain.shape if self.model.pretrain is not None else {}
        return {**worlds.get(str(self.data.world), **self.data.options).model_config(), **own}

    def judges(self) -> dict[str, ScoringJudge | Comparing]:
        """Who judges, by key path: the judge, or the judges of a jury."""
        if isinstance(self.judge, JurySettings):
            return {f"judge.judges.{name}": member for name, member in self.judge.judges.items()}
        return {"judge": self.judge}

    def stages(self) -> set[str]:
        """What an arm may start from besides other arms; these names always mean the stage."""
        return {"base"} | ({"sft"} if self.sft is not None else set())

    @property
    def baseline_arm(self) -> str:
        """The arm every other is compared with: `baseline`, or the first; "" without arms."""
        return self.baseline or next(iter(self.arms), "")
