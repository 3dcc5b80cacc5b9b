"""One line of a comparison: a method, its parameters, its budget and its signal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from evenhand.configfile.schema import from_signature
from evenhand.configfile.validation_errors import Faults
from evenhand.errors import UserError, did_you_mean
from evenhand.methods import METHODS, Method, build
from evenhand.models.adapter_config import RATE
from evenhand.train.config import Lengths, ReferenceUpdate, SamplingConfig, Staleness, Train

START = "start"
"""The method of an arm that is the starting policy itself, untouched."""
BEST_OF_N = "best_of_n"
"""The method of an arm that answers with the best of `n` samples of the starting policy, by its `reward`."""
GATED, RATED_BY = "gated_reward_model", "attribute_reward_model"
"""The method that mixes the scores of another reward model, and the method of that one."""


def best_of_n(*, n: int = 8) -> int:
    """The parameters of `BEST_OF_N`: how many samples the answer is chosen from."""
    if n < 2:
        raise UserError(f"n is {n}", where="best_of_n", fix="choose from at least 2 samples")
    return n


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """A model that a policy learns from; its tokenizer must be the policy's."""

    path: str
    """A folder in transformers' format, or a hub name."""
    revision: str | None = None
    """The commit or tag of a hub model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One line of the comparison, checked: its method, parameters, training and signal."""

    name: str
    """The key under `arms`."""
    method: str
    """One of docs/methods.md, or `start` (the starting policy as it is), or `best_of_n`."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The method's own, given as keys of the arm beside the others."""
    train: Train = field(default_factory=Train)
    """What differs from the shared `train`."""
    initial_policy: str = ""
    """What it starts from in place of the shared `initial_policy`: base, sft, or another arm."""
    reward: str | Mapping[str, Any] | None = None
    """What it learns by, or `keep_checkpoint: best` chooses by: a reward's or reward model's name, or {kind: ...}."""
    teacher: Teacher | None = None
    """The model that a distilling method learns from: {path: FOLDER or hub name}."""
    reference_update: ReferenceUpdate | None = None
    """Let the reference follow the policy: {every: STEPS, mix: SHARE}. For any method that is held to the start."""
    staleness: Staleness | None = None
    """Sample from older weights: {steps: OPTIMIZER STEPS}. For any method that samples, see docs/staleness.md."""
    environment: str | Mapping[str, Any] | None = None
    """What answers between the turns of what it samples in training, in place of the shared `environment`; none: nothing."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """What differs from the shared `sampling`."""
    lengths: Lengths = field(default_factory=Lengths)
    """Limits that it is trained under; all arms answer under the experiment's."""
    per_seed: bool = True
    """Whether it is trained once per seed, or once for all."""
    data: str | None = None
    """The split that it learns from, in place of its method's own."""

    @property
    def trained(self) -> bool:
        """False for an arm that answers with its start as it is."""
        return self.method not in (START, BEST_OF_N)

    @property
    def best_of(self) -> int:
        """How many samples each answer is chosen from."""
        return best_of_n(**self.parameters) if self.method == BEST_OF_N else 1

    @property
    def learning_rate(self) -> float:
        """The arm's own, or its method's default, which an adapter multiplies by `adapter_config.RATE`."""
        if self.train.learning_rate is not None:
            return self.train.learning_rate
        usual = self.build().learning_rate
        return usual * RATE if self.train.adapter is not None else usual

    def build(self, *, steps: int = 1) -> Method:
        """The method with its parameters; `steps` count where the method asks for them, and its rounds are of interest."""
        made = build(self.method, self.parameters, steps=steps, max_tokens=self.lengths.completion)
        return made.following(self.reference_update).stale(self.staleness)


ARM_KEYS = tuple(f.name for f in fields(Arm) if f.name not in ("name", "parameters"))
"""The arm's own keys; any other is a parameter of its method."""
INJECTED = ("steps", "max_tokens")
PARTS: Mapping[str, Callable[..., Any]] = {
    "teacher": Teacher, "reference_update": ReferenceUpdate, "staleness": Staleness,
    "sampling": SamplingConfig, "lengths": Lengths,
}  # fmt: skip
"""Keys of an arm that are mappings, and what each is made into."""


def parse_arm(name: str, raw: Mapping[str, Any], *, where: str, train: Mapping[str, Any], defaults: Mapping[str, Any]) -> Arm:
    """A raw arm, checked. Keys that are not an arm's own are the method's parameters; shared `train` values come first."""
    raw = {**defaults, **raw}
    kind = raw.get("method")
    kind = METHODS.canonical(kind) if isinstance(kind, str) else kind
    if kind is None:
        raise UserError("'method' is missing", where=where, fix=f"add `method:`; {did_you_mean('', METHODS)}")
    signatures: dict[str, Callable[..., Any]] = {**METHODS, BEST_OF_N: best_of_n}
    if kind != START and kind not in signatures:
        raise METHODS.unknown(str(kind), where=f"{where}.method", known=[*signatures, START])
    own = {k: v for k, v in raw.items() if k in ARM_KEYS} | {"method": kind}
    rest = {k: v for k, v in raw.items() if k not in ARM_KEYS}
    if kind == START:
        if rest:
            key = next(iter(rest))
            raise UserError(f"unknown key '{key}'", where=f"{where}.{key}", fix="the method `start` has no parameters")
        parameters: dict[str, Any] = {}
    else:
        parameters = from_signature(signatures[kind], rest, where, skip=INJECTED)
    if kind == BEST_OF_N:
        best_of_n(**parameters)
    own["train"] = parse_train(train, own.get("train", {}), where)
    if own["train"].adapter is not None and not own.get("initial_policy", True):
        fix = "train all of its weights; later stages may have an adapter"
        raise UserError("a new network has nothing that an adapter could change", where=f"{where}.train.adapter", fix=fix)
    own = {"sampling": {}, "lengths": {}, **own}
    if isinstance(own.get("teacher"), str):
        own["teacher"] = {"path": own["teacher"]}
    for key in PARTS.keys() & own.keys():
        own[key] = PARTS[key](**from_signature(PARTS[key], own[key], f"{where}.{key}"))
    if own.get("staleness") == Staleness(steps=0):
        own["staleness"] = None  # on-policy is one thing, however it is written
    checked = from_signature(Arm, {"name": name, **own, "parameters": parameters}, where)
    return Arm(**checked)


def parse_train(shared: Mapping[str, Any], own: Mapping[str, Any], where: str) -> Train:
    """Training settings, checked: what an arm names itself takes the place of what all share, in `adapter` key by key."""
    raw = {**shared, **own}
    here = f"{where}.train" if "adapter" in own else "train"
    if all(isinstance(part.get("adapter"), Mapping) for part in (shared, own)):
        raw["adapter"] = {**shared["adapter"], **own["adapter"]}
    checked = Train(**from_signature(Train, raw, f"{where}.train"))
    Faults.raise_any(checked.adapter.problems(f"{here}.adapter") if checked.adapter is not None else ())
    return checked
