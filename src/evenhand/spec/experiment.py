"""What an experiment file may say. The dataclasses are the schema; every field has its default here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from evenhand.data.config import DataConfig
from evenhand.errors import UserError
from evenhand.judges.config import LLM, LocalLLM, OwnJudge, PreferenceModel
from evenhand.spec.arms import Arm, parse_arm
from evenhand.spec.pretrained import Adopted, is_adopted, parse_adopted
from evenhand.spec.tuning import Tune, Tuned
from evenhand.synthesis.config import Annotate, Revise
from evenhand.train.config import Lengths, SamplingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretrain:
    """Train the world's own small model from scratch on `documents` texts of its corpus."""

    documents: int = 4000
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The base model: a folder or hub name (`path`), or a built-in world's own model, pretrained here (`pretrain`).

    A `path` to an adapter (adapter_config.json) is merged into the base that it names, or into `base`.

    `dtype` is the precision of weights, `matmul` that of matrix products (by default the weights' own), in every stage: training,
    scoring and sampling, of policies and reward models. bfloat16 products over float32 weights are several times faster where
    the processor has them; gradients, updates and sums over the vocabulary stay in float32.
    """

    path: str | None = None
    base: str | None = None
    pretrain: Pretrain | None = None
    dtype: str = "auto"
    matmul: Literal["float32", "bfloat16"] | None = None
    template: str | None = None
    revision: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """Who compares two answers: a program or a reward model scores both, the higher wins, `tie` apart is a tie.

    `self_test`: prompts that the judge is tested with first, 0 for none. Language models as judges: `evenhand.judges.config`.
    """

    reward: str | Mapping[str, Any] = "gold"
    tie: float = 1e-9
    self_test: int = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """The seeds and held-out prompts that a study is meant to end with, before anyone looks."""

    seeds: int
    prompts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The held-out comparison: how many prompts, sampled how.

    `best_of_n`: answers per prompt of the starting policy that every reward model scores, for best-of-n curves and the
    reward's leaning to length; 0 leaves both out. `frontier`: score the answers sampled in training (`train.sample_every`).
    `length_grid`: completion limits under which every arm answers and is judged again, each against the baseline's answers
    under the same limit; with arms trained under different `lengths` this is the grid of training by inference length.
    `planned`: the design declared before looking; results shown before it is complete, or beyond it, then share one error of 5 %.
    """

    prompts: int = 200
    best_of_n: int = 0
    frontier: bool = True
    length_grid: tuple[int, ...] = ()
    planned: Planned | None = None
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """How work is spread: `workers` processes of `threads` threads each, on `device`. Threads are part of the result's bytes.

    By default there is one worker per accelerator, or as many as the processor has room for.
    `store` is a folder of artifacts to share between experiments; by default each run directory has its own.
    """

    workers: int | None = None
    threads: int = 1
    device: str = "auto"
    store: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Doctor:
    """Checks of `evenhand doctor` that are let pass, by id, each with the reason that the report shows."""

    waive: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One experiment file, in full. `train` and `sampling` hold for every arm; an arm names only what differs.

    `plugins` are files (relative to the experiment file) and modules of the user's that register what the file then names;
    `tracker` is told every arm's metrics (both: docs/extending.md).
    """

    name: str
    description: str = ""
    plugins: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    baseline: str = ""
    model: ModelConfig
    data: DataConfig
    lengths: Lengths = field(default_factory=Lengths)
    start: str = "sft"
    sft: Mapping[str, Any] | None = None
    annotate: Annotate | None = None
    revise: Revise | None = None
    reward_models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rewards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]]
    judge: Judge | LLM | LocalLLM | PreferenceModel | OwnJudge = Judge()
    evaluation: Evaluation = Evaluation()
    runtime: Runtime = Runtime()
    doctor: Doctor = Doctor()
    engine: str | Mapping[str, Any] = "local"
    tracker: str | Mapping[str, Any] | None = None
    tune: Tune | None = None
    tuned: Tuned | None = None

    def all_arms(self) -> dict[str, Arm]:
        """The arms in order, checked."""
        return {n: self.arm(n) for n in self.arms}

    def arm(self, name: str) -> Arm:
        """One arm, checked."""
        return self._arm(name, self.arms[name], f"arms.{name}", {"start": self.start})

    def all_reward_models(self) -> dict[str, Arm]:
        """The reward models that are trained here, as arms of the method `reward_model`."""
        defaults = {"method": "reward_model", "start": self.start}
        return {n: self._arm(n, raw, f"reward_models.{n}", defaults, shared=False) for n, raw in self.recipes().items()}

    def recipes(self) -> dict[str, Mapping[str, Any]]:
        return {n: raw for n, raw in self.reward_models.items() if not is_adopted(raw)}

    def all_adopted(self) -> dict[str, Adopted]:
        """The reward models that exist already."""
        return {n: parse_adopted(n, raw) for n, raw in self.reward_models.items() if is_adopted(raw)}

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
        for key in ("train", "sampling", "lengths"):
            if not isinstance(raw.get(key, {}), Mapping):
                fix = "give keys and values, or remove it to use the defaults"
                raise UserError(f"{raw[key]!r} is not valid", where=f"{where}.{key}", why="it must be a mapping", fix=fix)
        raw = {**raw, "sampling": {**self.sampling, **raw.get("sampling", {})}}
        raw["lengths"] = {**asdict(self.lengths), **raw.get("lengths", {})}
        return parse_arm(name, raw, where=where, train=train, defaults=defaults)

    def stages(self) -> set[str]:
        """What an arm may start from besides other arms; these names always mean the stage."""
        return {"base"} | ({"sft"} if self.sft is not None else set())

    @property
    def baseline_arm(self) -> str:
        """The arm every other is compared with: `baseline`, or the first."""
        return self.baseline or next(iter(self.arms))
