"""Settings that would change nothing: what an arm or a stage names for itself and its method never reads.

A setting that all arms share is a default for those that read it, and is not refused; it differs between no two arms.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from evenhand.data.config import DataConfig
from evenhand.errors import UserError
from evenhand.methods import COMPARISONS, DEMONSTRATIONS, METHODS, Method
from evenhand.spec.arms import ARM_KEYS, BEST_OF_N, INJECTED, Arm
from evenhand.spec.experiment import Evaluation, Experiment
from evenhand.store.fingerprint import default_of
from evenhand.synthesis.config import Annotate
from evenhand.train.config import Train
from evenhand.train.policies import INITIAL_POLICY, TEACHER

SOME_STEPS = 100
"""Steps of a method whose own number is not known before its data are read."""
MANY_STEPS = 10_007
LEFT_TO_AN_UNTRAINED_ARM = ("tokens_per_microbatch",)
"""Training settings that an arm that is not trained reads all the same, for the KL of its answers."""


def problems(e: Experiment) -> Iterator[UserError]:
    """Faults of the sections that no arm owns; see `arm_problems` for the rest."""
    yield from _evaluation_problems(e)
    yield from _data_problems(e)
    if e.annotate is None:
        return
    if e.annotate.judge is not None and e.annotate.noise != _default(Annotate, "noise"):
        yield _nothing("annotate.noise", "a judge is no annotator with a temperature")
    if isinstance(e.annotate.reward, str) and _says_chances(e, e.annotate.reward):
        for key in ("noise", "bias_per_word"):
            if getattr(e.annotate, key) != _default(Annotate, key):
                yield _nothing(f"annotate.{key}", "a general preference model says the chance of each label itself")


def arm_problems(arm: Arm, raw: Mapping[str, Any], where: str) -> Iterator[UserError]:
    """What an arm, a reward model or a stage sets itself (`raw`) without any effect on it."""
    if not arm.trained:
        yield from _untrained_problems(arm, raw, where)
        return
    method = arm.build(steps=arm.train.steps or SOME_STEPS)
    why = unread(arm, method)
    for key, section in (("train", Train), ("sampling", None)):
        for name, value in (raw.get(key) or {}).items():
            cause = why.get(f"{key}.{name}") or why.get(key)
            if cause and (section is None or value != _default(section, name)):
                yield _nothing(f"{where}.{key}.{name}", cause)
    if "lengths" in raw and "lengths" in why:
        yield _nothing(f"{where}.lengths", why["lengths"])
    yield from _parameter_problems(arm, where)


def stage_problems(arm: Arm, raw: Mapping[str, Any], where: str) -> Iterator[UserError]:
    """The same of a stage that arms start from, which also has no signal that its method does not read."""
    if "initial_policy" in raw:
        fix = f"remove it; for another start use an arm `{{method: {arm.method}, initial_policy: {raw['initial_policy']}}}`"
        yield _nothing(f"{where}.initial_policy", "the stage that arms share always starts from the base model", fix)
    yield from arm_problems(arm, raw, where)
    method = arm.build(steps=arm.train.steps or SOME_STEPS)
    if arm.reward is not None and not method.rewarded and arm.train.keep_checkpoint != "best":
        yield _nothing(f"{where}.reward", f"{arm.method} learns from fixed data")
    if arm.teacher is not None and method.reference != TEACHER:
        yield _nothing(f"{where}.teacher", f"{arm.method} learns from no teacher")
    if arm.reference_update is not None and method.reference != INITIAL_POLICY:
        yield _nothing(f"{where}.reference_update", f"{arm.method} is not held to the start")


def unread(arm: Arm, method: Method) -> dict[str, str]:
    """Settings of a trained arm that its training never reads, by their place in the arm, each with the reason."""
    score, fixed, found = method.network == "reward", not method.online, {}
    if score:
        found["train.sample_every"] = "a reward model answers nothing"
        found["train.router_loss"] = "the head of a reward model has no part in it"
    if not fixed or method.data == DEMONSTRATIONS:
        learns = "has no held-out loss: its rows are its own samples" if not fixed else "is followed by its sampled answers"
        found["train.evaluate_every"] = f"{arm.method} {learns}"
    if arm.train.keep_checkpoint != "best":
        last = "the last weights are kept; `keep_checkpoint: best` chooses among several"
        found |= {"train.validate_every": last, "train.validation_prompts": last, "train.choose_by": last}
    elif arm.reward is not None:
        found["train.choose_by"] = "the arm's reward chooses"
    answers = not score and bool(arm.train.sample_every)
    chosen_by_reward = arm.train.keep_checkpoint == "best" and arm.reward is not None
    if fixed and not answers and not chosen_by_reward:
        found["sampling"] = f"{arm.method} learns from fixed data; held-out answers are sampled as `evaluation.sampling` says"
        if method.data == COMPARISONS:
            found["lengths"] = f"the questions of {arm.method} are never cut"
    return found


def _untrained_problems(arm: Arm, raw: Mapping[str, Any], where: str) -> Iterator[UserError]:
    """An arm that answers with its start as it is. `lengths` have a message of their own."""
    why = "it is not trained"
    read = {"method", "initial_policy", "train", "lengths", *(("reward",) if arm.method == BEST_OF_N else ())}
    for key in raw.keys() & set(ARM_KEYS) - read:
        named = "held-out answers are sampled as `evaluation.sampling` says" if key == "sampling" else why
        yield _nothing(f"{where}.{key}", named)
    for key in raw.get("train") or {}:
        if key not in LEFT_TO_AN_UNTRAINED_ARM:
            yield _nothing(f"{where}.train.{key}", why)


def _parameter_problems(arm: Arm, where: str) -> Iterator[UserError]:
    """Parameters of a method that make the same method as their default, with the others as they are.

    In a long run too: few steps may make one method of several numbers of rounds.
    """
    declared = inspect.signature(METHODS[arm.method]).parameters
    lengths = (arm.train.steps or SOME_STEPS, MANY_STEPS)
    for key, value in arm.parameters.items():
        if key in INJECTED or key not in declared or declared[key].default in (inspect.Parameter.empty, value):
            continue
        without = replace(arm, parameters={name: own for name, own in arm.parameters.items() if name != key})
        try:
            made = [[each.build(steps=n) for n in lengths] for each in (arm, without)]
        except UserError:  # the others need it
            continue
        if made[0] == made[1]:
            yield _nothing(f"{where}.{key}", f"with its other settings {arm.method} is the same for any value of it")


def _evaluation_problems(e: Experiment) -> Iterator[UserError]:
    given = e.evaluation
    if given.pass_samples and not given.pass_at:
        fix = "name `pass_at`, such as [1, 8], or remove it"
        yield _nothing("evaluation.pass_samples", "nothing is estimated from them", fix)
    if given.best_of_n and not e.reward_models:
        yield _nothing("evaluation.best_of_n", "reward models choose among the answers, and there is none")
    if not e.arms:
        for f in fields(Evaluation):
            if f.name not in ("prompts", "best_of_n", "sampling") and getattr(given, f.name) != default_of(f):
                yield _nothing(f"evaluation.{f.name}", "there are no arms to compare")


def _data_problems(e: Experiment) -> Iterator[UserError]:
    data = e.data
    if data.world is None and data.sizes:
        yield _nothing("data.sizes", "rows are read as their sources have them", "give a source `limit:`, or remove it")
    apart = data.world is not None and not any(split.source for split in e.splits.values())
    if apart and 0 <= data.holdout < 1 and data.holdout != _default(DataConfig, "holdout"):
        yield _nothing("data.holdout", "a built-in world makes held-out rows of its own", "set `data.sizes`, or remove it")


def _default(owner: type, name: str) -> Any:
    return next((default_of(f) for f in fields(owner) if f.name == name), None)


def _nothing(where: str, why: str, fix: str = "remove it") -> UserError:
    return UserError(f"`{where.rpartition('.')[2]}` has no effect here", where=where, why=why, fix=fix)


def _says_chances(e: Experiment, reward: str) -> bool:
    """Whether it is a model of the chance that one answer is preferred."""
    found = e.all_adopted().get(reward)
    return found is not None and found.kind == "general_preference"
