"""What an experiment file may say. The dataclasses are the schema; every field has its default here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from evenhand.configfile.schema import from_signature
from evenhand.data.config import SPLITS, DataConfig
from evenhand.data.source import check_source
from evenhand.engines.registry import ENGINES
from evenhand.errors import UserError, did_you_mean
from evenhand.judges import config as judging
from evenhand.judges.config import LLM, LocalLLM, OwnJudge, PreferenceModel
from evenhand.methods import Method
from evenhand.registry import Registry
from evenhand.spec import search_spaces, tuning, value_ranges
from evenhand.spec.arms import BEST_OF_N, Arm, parse_arm
from evenhand.spec.pretrained import Adopted, is_adopted, parse_adopted
from evenhand.spec.reward_resolution import models_in, resolved_reward, reward_problem, world_problem
from evenhand.spec.tuning import Tune, Tuned
from evenhand.synthesis.config import REVISED, Annotate, Revise
from evenhand.trackers import TRACKERS
from evenhand.train.config import Lengths, SamplingConfig, Train


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
        return {n: self._arm(n, raw, f"reward_models.{n}", defaults, shared=False) for n, raw in self._recipes().items()}

    def _recipes(self) -> dict[str, Mapping[str, Any]]:
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

    def problems(self) -> Iterator[UserError]:
        """Every fault that needs no device to find."""
        yield from self._structure()
        if shared := list(self._shared()):
            yield from shared  # said once here rather than again by every arm
            return
        arms: dict[str, Arm] = {}
        for group in (self.all_arms, self.all_reward_models):
            try:
                arms |= group()
            except UserError as error:
                yield error
        for make in (self.sft_arm, self.pretrain_arm, self.all_adopted):
            try:
                make()
            except UserError as error:
                yield error
        yield from value_ranges.problems(self)
        yield from tuning.problems(self)
        yield from search_spaces.problems(self)
        for name, arm in arms.items():
            section = "reward_models" if name in self.reward_models else "arms"
            yield from self._arm_problems(arm, f"{section}.{name}")
            if name in self.reward_models and not self._gives_reward(arm):
                yield UserError(
                    f"{arm.method} does not give a reward", where=f"reward_models.{name}.method",
                    fix="use reward_model, local_reward_model, dpo or preference_model",
                )  # fmt: skip

    def _shared(self) -> Iterator[UserError]:
        """Faults of the settings that every arm shares."""
        for name, kind in (("train", Train), ("sampling", SamplingConfig)):
            try:
                from_signature(kind, getattr(self, name), name)
            except UserError as error:
                yield error

    def _structure(self) -> Iterator[UserError]:
        if not self.arms:
            yield UserError("an experiment needs at least one arm", where="arms", fix="add e.g. `dpo: {method: dpo}`")
        if self.arms and self.baseline_arm not in self.arms:
            yield UserError(f"no arm is called '{self.baseline}'", where="baseline", fix=did_you_mean(self.baseline, self.arms))
        if grid := [n for n in self.evaluation.length_grid if n < 1]:
            yield UserError(f"a completion limit of {grid[0]}", where="evaluation.length_grid", fix="name limits in tokens")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            yield UserError(f"seeds must be different and at least one, got {list(self.seeds)}", where="seeds")
        for split in SPLITS:
            source = getattr(self.data, split)
            try:
                check_source(source or {}, where=f"data.{split}")
            except UserError as error:
                yield error
        if (not self.model.path) == (self.model.pretrain is None):
            yield UserError("name either `path` or `pretrain`", where="model", fix="a folder or hub name, or a world's own model")
        if self.model.pretrain is not None and self.data.world is None:
            yield UserError(
                "`pretrain` needs a built-in world", where="model.pretrain", fix="add `data.world`, or give `model.path`"
            )
        yield from world_problem(self.data.world, self.data.options)
        if self.data.world is None and not any(getattr(self.data, s) for s in SPLITS):
            yield UserError("no data is named", where="data", fix="name a `world`, or `preferences:`, `prompts:`, ...")
        if isinstance(self.judge, Judge):
            yield from reward_problem(self.judge.reward, self, "judge.reward")
        elif fault := judging.problem(self.judge):
            yield fault
        named: tuple[tuple[Registry[Any], Any, str], ...] = (
            (ENGINES, self.engine, "engine"),
            (TRACKERS, self.tracker, "tracker"),
        )
        for registry, settings, where in named:
            try:
                _ = None if settings is None else registry.check(settings, where=where)
            except UserError as error:
                yield error
        for section in (self.annotate, self.revise):
            yield from section.problems() if section is not None else ()
        if self.annotate is not None and self.annotate.reward is not None:
            yield from reward_problem(self.annotate.reward, self, "annotate.reward")
            for name in sorted(models_in(resolved_reward(self.annotate.reward, self)) & set(self._recipes())):
                yield UserError(
                    f"the reward model {name} is trained on the pairs that it is to label", where="annotate.reward",
                    fix="label by a program, or by a reward model that exists (`path:`)",
                )  # fmt: skip
        if self.start == "sft" and self.sft is None:
            yield UserError("`start: sft` but there is no `sft:` section", where="start", fix="add `sft:`, or `start: base`")
        made = {f"arms.{n}": raw for n, raw in self.arms.items()} | {
            f"reward_models.{n}": r for n, r in self.reward_models.items()
        }
        for where, raw in made.items():
            if raw.get("data") in REVISED and self.revise is None:
                yield UserError(f"nothing makes `{raw['data']}`", where=f"{where}.data", fix="add a `revise:` section")
        if self.sft is not None and self.sft.get("data") in REVISED:
            yield UserError("the stage that revises cannot learn from it", where="sft.data", fix="use an arm `{method: sft}`")

    def _gives_reward(self, arm: Arm) -> bool:
        try:
            return arm.trained and self._built(arm).implied_reward is not None
        except UserError:  # told already
            return True

    def _built(self, arm: Arm) -> Method:
        return arm.build(steps=1, max_tokens=self.lengths.completion)

    def _arm_problems(self, arm: Arm, where: str) -> Iterator[UserError]:
        known = self.stages() | (set(self.arms) - {arm.name})
        if arm.start not in known:
            yield UserError(f"cannot start from '{arm.start}'", where=f"{where}.start", fix=did_you_mean(arm.start, known))
        if arm.method == BEST_OF_N and arm.reward is None:
            yield UserError("best_of_n chooses by a reward", where=where, fix="add `reward:` (a reward model's name, ...)")
        if arm.method == BEST_OF_N and arm.reward is not None:
            yield from reward_problem(arm.reward, self, f"{where}.reward")
        if not arm.trained:
            if arm.lengths != self.lengths:
                yield UserError("an arm that is not trained has no limits of its own", where=f"{where}.lengths", fix="remove it")
            return
        try:
            method = self._built(arm)
        except UserError as error:  # a parameter that is no choice
            refused = (key for key, value in arm.parameters.items() if isinstance(value, str) and f"'{value}'" in error.what)
            place = ".".join((where, *list(refused)[:1]))
            yield UserError(error.what, where=place, why=error.why, fix=error.fix)
            return
        missing = method.objective.needs - method.provides
        if missing:
            yield UserError(f"{arm.method} needs {', '.join(sorted(missing))}, which nothing provides", where=where)
        if (arm.train.steps is None) == (arm.train.epochs is None):
            yield UserError("name either `steps` or `epochs`", where=f"{where}.train")
        if method.online and arm.reward is None:
            yield UserError(
                f"{arm.method} samples and needs a reward", where=where, fix="add `reward:` (a reward model's name, ...)"
            )
        best = arm.train.keep == "best"
        if not method.online and arm.reward is not None and not best:
            yield UserError(
                f"{arm.method} learns from fixed data; a reward has no effect", where=f"{where}.reward",
                fix="remove it, or choose the best weights by it: `train: {keep: best}`",
            )  # fmt: skip
        if best and arm.reward is not None and method.network == "reward":
            yield UserError("a reward model gives no answers to reward", where=f"{where}.reward", fix="remove it")
        rounds = arm.build(steps=arm.train.steps or 100, max_tokens=self.lengths.completion).rounds
        if best and not (arm.train.validate_every or rounds):
            yield UserError(
                "`keep: best` needs to know how often to measure", where=f"{where}.train", fix="add `validate_every:` steps"
            )
        if best and arm.train.validation_prompts < 1:
            yield UserError("`keep: best` needs prompts", where=f"{where}.train.validation_prompts", fix="use at least 1")
        if arm.reward is not None:
            yield from reward_problem(arm.reward, self, f"{where}.reward")
