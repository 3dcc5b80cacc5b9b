"""What numbers a setting may take: a value outside would fail late, or train without an error on what nobody meant."""

from __future__ import annotations

import inspect
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from typing_extensions import override

from evenhand.data.config import SPLITS
from evenhand.data.template import SUPERVISE
from evenhand.errors import UserError, did_you_mean
from evenhand.spec.arms import Arm
from evenhand.spec.experiment import Experiment
from evenhand.train.optim import SCHEDULES
from evenhand.train.rules import RULES
from evenhand.types import Need


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`; `above` and `below` leave the ends out. `why` says what others would mean."""

    why: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    @override
    def __str__(self) -> str:
        ends = {"at least": self.low, "above": self.above, "at most": self.high, "below": self.below}
        return " and ".join("finite" if end == math.inf else f"{word} {end:g}" for word, end in ends.items() if end is not None)


COUNT = Range("with none of them nothing would be done", low=1)
MAYBE = Range("there is no less than nothing of it", low=0)
STRENGTH = Range("there is no less than nothing of it, nor of anything without end", low=0, below=math.inf)
FINITE = Range("at 0 or less, or without end, it has no effect or the opposite one", above=0, below=math.inf)
POSITIVE = Range("at 0 or less it has no effect, or the opposite one", above=0)
SHARE = Range("it is a share", low=0, high=1)
NUCLEUS = Range("it is the share of the probability that is sampled from", above=0, high=1)
PAIR = Range("a pair is made of two answers", low=2)
TRAIN: Mapping[str, Range] = {
    "steps": COUNT, "epochs": FINITE, "prompts_per_step": COUNT, "learning_rate": STRENGTH, "weight_decay": STRENGTH,
    "warmup": Range("it is the share of the steps in which the learning rate rises", low=0, high=1), "eps": FINITE,
    "clip": POSITIVE, "tokens_per_microbatch": COUNT, "checkpoint_every": MAYBE, "evaluate_every": MAYBE, "sample_every": MAYBE,
    "validate_every": MAYBE, "validation_prompts": COUNT, "router_loss": STRENGTH,
}  # fmt: skip
LIMIT = Range("every rule measures something that is 0 or more", low=0)
BETAS = Range("a moving average of no or of all of the past is none", low=0, below=1)
UPDATE: Mapping[str, Range] = {"every": COUNT, "mix": Range("it is the policy's share of the new reference", above=0, high=1)}
SAMPLING: Mapping[str, Range] = {
    "temperature": STRENGTH,
    "top_p": NUCLEUS,
    "top_k": MAYBE,
    "min_p": Range("it is a share of the likeliest token's probability", low=0, below=1),
}
PARAMETERS: Mapping[str, Range] = {
    **dict.fromkeys(("low", "high", "clip", "dual_clip", "value_clip", "importance", "refill", "kl_target", "warmup"), MAYBE),
    "renew": MAYBE, "gain": FINITE,
    **dict.fromkeys(("beta", "kl", "entropy", "likelihood", "margin_scale", "centring", "weight", "alpha"), STRENGTH),
    **dict.fromkeys(("focus", "reward_limit", "optimism", "pessimism"), STRENGTH),
    **dict.fromkeys(("weight_desirable", "weight_undesirable", "length_penalty"), STRENGTH),
    **dict.fromkeys(("importance_low", "off_policy_mask", "penalty", "share"), STRENGTH),
    **dict.fromkeys(("completions_per_prompt", "updates", "epochs", "rounds", "k", "every", "parts"), COUNT),
    **dict.fromkeys(("lam", "gamma", "overlong", "mix", "share", "drop", "decay"), SHARE),
    **dict.fromkeys(("temperature", "rejection_temperature", "width", "eta", "robustness", "scale", "value_temperature"), FINITE),
    "tau": FINITE, "flip": Range("with half of the labels swapped they say nothing", low=0, below=0.5),
}  # fmt: skip
"""A method's parameters: these names mean one thing wherever they occur."""
DECAY: Mapping[str, Range] = {"factor": FINITE, "every": COUNT}
"""What the schedule `step` takes."""
SECTIONS: Mapping[str, Mapping[str, Range]] = {
    "lengths": {"prompt": COUNT, "completion": COUNT},
    "data": dict.fromkeys(("holdout", "judge_share"), Range("it is the share of prompts that is set apart", low=0, below=1)),
    "evaluation": {"prompts": COUNT, "best_of_n": MAYBE},
    "evaluation.planned": {"seeds": COUNT, "prompts": COUNT},
    "evaluation.sampling": SAMPLING,
    "runtime": {"workers": MAYBE, "threads": COUNT, "ranks": COUNT},
    "annotate": {
        "noise": MAYBE, "flip": SHARE, "prompts": COUNT, "heldout_prompts": COUNT, "completions_per_prompt": PAIR,
        "temperature": POSITIVE,
    },
    "judge": {"self_test": MAYBE},
    "revise": {"prompts": COUNT, "heldout_prompts": MAYBE, "temperature": STRENGTH},
    "model.pretrain": {"documents": COUNT},
}  # fmt: skip
NAME = re.compile(r"[\w+=,][\w .+=,-]*")
LONGEST = 100
"""Bytes of a name: it becomes part of longer names of folders and files, which end at 255."""
DEVICE = re.compile(r"auto|cpu|mps|(cuda|xpu)(:\d+)?")


def problems(experiment: Experiment, made: Mapping[str, Arm]) -> Iterator[UserError]:
    """Each value that cannot be meant, once, at the place where it was set; `made` is what is trained."""
    first = (*name_problems(experiment), *section_problems(experiment), *whole_text_problems(experiment, made))
    found = {error.where: error for error in first}
    for place, arm in made.items():
        found |= {error.where: error for error in arm_problems(arm, own_settings(experiment, place, arm), place)}
    yield from found.values()


def own_settings(experiment: Experiment, place: str, arm: Arm) -> Mapping[str, Any]:
    """What the file says of an arm or a stage by itself."""
    if place == "sft":
        return experiment.sft or {}
    if place == "model.pretrain":
        return {"train": experiment.model.pretrain.train} if experiment.model.pretrain is not None else {}
    return getattr(experiment, place.partition(".")[0])[arm.name]


def whole_text_problems(experiment: Experiment, made: Mapping[str, Arm]) -> Iterator[UserError]:
    """KTO takes its reference point on answers to other prompts; where whole texts are learned, an answer holds its own."""
    if experiment.data.supervise != "full":
        return
    for place, arm in made.items():
        with suppress(UserError):  # told elsewhere
            if place.startswith("arms.") and arm.trained and Need.MISMATCHED in arm.build().objective.needs:
                why = "its reference point needs answers without their prompts"
                fix = "use `data.supervise: completion` or `assistant`"
                yield UserError(f"{arm.method} cannot learn whole texts", where=place, why=why, fix=fix)


def name_problems(experiment: Experiment) -> Iterator[UserError]:
    """Names that are no folder's and no file's, and arms that start from each other."""
    for section in ("arms", "reward_models", "evaluations", "splits"):
        for name in getattr(experiment, section):
            if not NAME.fullmatch(name) or len(name.encode()) > LONGEST:
                why, fix = "results lie in a folder of this name", "use letters, digits, blanks, and any of . _ + = , -"
                fix += ", not in the first place" if name.startswith(("-", ".", " ")) else ""
                fix += f"; at most {LONGEST} of them" if len(name.encode()) > LONGEST else ""
                yield UserError(f"'{name[:LONGEST]}' cannot be a name", where=section, why=why, fix=fix)
        yield from _twins(getattr(experiment, section), section)
    starts = {name: raw.get("initial_policy", experiment.initial_policy) for name, raw in experiment.arms.items()}
    for name in starts:
        way = [name]
        while (start := starts.get(way[-1])) in starts and start not in experiment.stages() and start not in way:
            way.append(start)
        if start == name and len(way) > 1:
            circle = " -> ".join([*way, name])
            fix = "let one of them start from `sft` or `base`"
            yield UserError("the arms start from each other", where=f"arms.{name}.initial_policy", why=circle, fix=fix)


def _twins(names: Iterable[str], section: str) -> Iterator[UserError]:
    """Names that some file systems take for one: they differ in case only, or in how a letter is written."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if other != name:
            why = "results lie in folders of these names, which some file systems take for one"
            yield UserError(f"'{name}' and '{other}' differ in case only", where=section, why=why, fix="rename one of them")


def section_problems(experiment: Experiment) -> Iterator[UserError]:
    """Values out of range in the sections that all arms share."""
    for where, ranges in SECTIONS.items():
        part: Any = experiment
        for name in where.split("."):
            part = getattr(part, name, None)
        for key, allowed in ranges.items():
            yield from _problem(getattr(part, key, None), allowed, f"{where}.{key}")
    for where, judge in _judges(experiment):
        yield from _problem(getattr(judge, "tie", None), MAYBE, f"{where}.tie")
    for name, asked in experiment.evaluations.items():
        for key, allowed in SAMPLING.items():
            yield from _problem(getattr(asked.sampling, key, None), allowed, f"evaluations.{name}.sampling.{key}")
    if experiment.data.supervise not in SUPERVISE:
        yield _unknown(experiment.data.supervise, "data.supervise", SUPERVISE)
    for split, rows in experiment.data.sizes.items():
        if split not in SPLITS:
            yield UserError(f"unknown split '{split}'", where=f"data.sizes.{split}", fix=did_you_mean(split, SPLITS))
        yield from _problem(rows, COUNT, f"data.sizes.{split}")
    if not DEVICE.fullmatch(experiment.runtime.device):
        fix = "auto, cpu, cuda or cuda:0"
        yield UserError(f"unknown device '{experiment.runtime.device}'", where="runtime.device", fix=fix)


def _judges(experiment: Experiment) -> Iterator[tuple[str, Any]]:
    """Every judge with its place in the file, those of juries and of further evaluations too."""
    yield from experiment.judges().items()
    for name, asked in experiment.evaluations.items():
        if asked.judge is not None:
            for place, judge in replace(experiment, judge=asked.judge).judges().items():
                yield f"evaluations.{name}.{place}", judge


def arm_problems(arm: Arm, raw: Mapping[str, Any], where: str) -> Iterator[UserError]:
    """Values out of range in an arm; `raw` tells what it set itself and what it shares with the others."""
    for section, ranges in (("train", TRAIN), ("sampling", SAMPLING)):
        own = raw.get(section) or {}
        for key, allowed in ranges.items():
            place = f"{where}.{section}.{key}" if key in own else f"{section}.{key}"
            yield from _problem(getattr(getattr(arm, section), key), allowed, place)
    for key, allowed in UPDATE.items():
        yield from _problem(getattr(arm.reference_update, key, None), allowed, f"{where}.reference_update.{key}")
    yield from _problem(getattr(arm.staleness, "steps", None), MAYBE, f"{where}.staleness.steps")
    at = {key: f"{where}.train" if key in (raw.get("train") or {}) else "train" for key in ("betas", "stop_when", "schedule")}
    yield from _problem(arm.train.betas, BETAS, f"{at['betas']}.betas")
    yield from _stop_problems(arm, at["stop_when"])
    yield from _schedule_problems(arm, at["schedule"])
    for key, value in arm.parameters.items():
        if key in PARAMETERS:
            yield from _problem(value, PARAMETERS[key], f"{where}.{key}")


def _stop_problems(arm: Arm, where: str) -> Iterator[UserError]:
    """A limit must name a rule, and be one that a sound start has not passed already."""
    for name, limit in arm.train.stop_when.items():
        if name not in RULES:
            yield UserError(f"unknown limit '{name}'", where=f"{where}.stop_when.{name}", fix=did_you_mean(name, RULES))
        else:
            yield from _problem(limit, LIMIT, f"{where}.stop_when.{name}")


def _schedule_problems(arm: Arm, where: str) -> Iterator[UserError]:
    if arm.train.schedule not in SCHEDULES:
        yield _unknown(arm.train.schedule, f"{where}.schedule", SCHEDULES)
        return
    known = [n for n, p in inspect.signature(SCHEDULES[arm.train.schedule]).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for key in arm.train.schedule_parameters:
        if key not in known:
            fix = did_you_mean(key, known) if known else f"the schedule {arm.train.schedule} has none; remove it"
            yield UserError(f"unknown key '{key}'", where=f"{where}.schedule_parameters.{key}", fix=fix)
    for key, value in arm.train.schedule_parameters.items():
        if key in DECAY:
            yield from _problem(value, DECAY[key], f"{where}.schedule_parameters.{key}")


def _problem(value: Any, allowed: Range, where: str) -> Iterator[UserError]:
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, int | float) and not isinstance(number, bool) and not allowed.holds(number):
            yield UserError(f"{number:g} is out of range", where=where, why=allowed.why, fix=f"give a number {allowed}")


def _unknown(value: str, where: str, known: Any) -> UserError:
    return UserError(f"'{value}' is not a choice here", where=where, fix=did_you_mean(value, known))
