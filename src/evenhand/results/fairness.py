"""What an experiment holds equal, and what it does not, in words: from what was set, and from what was spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from evenhand.spec.arms import Arm, Train
from evenhand.spec.experiment import Experiment, JurySettings

UNITS = {
    "tokens_trained": "tokens trained on", "tokens_generated": "tokens generated in training", "reward_calls": "reward calls",
    "flops": "floating-point operations",
}  # fmt: skip
"""What a seed of an arm may spend, by its name in the ledger."""
EQUAL = 1.05
"""Arms have spent alike when the most costly one is within this factor of the cheapest."""
CHOOSES = ("choose_by", "validate_every", "validation_prompts")
"""Settings that only choose among weights."""
UNSEEN = ("tokens_per_microbatch", "gradient_checkpointing", "checkpoint_every", "evaluate_every", "sample_every", "snapshots")
"""Settings that change no weights."""


def held_equal(experiment: Experiment, answered: int | None = None) -> list[str]:
    """What every arm has in common, in words. `answered`: how many held-out prompts each of them really answered."""
    e, sampling = experiment, experiment.evaluation.sampling
    truncated = f", {sampling.cuts}" if sampling.cuts else ""
    asked = e.evaluation.prompts
    fewer = f" ({asked} were asked for; the data hold no more)" if answered is not None and answered < asked else ""
    judge = "One jury judges" if isinstance(e.judge, JurySettings) else "One judge scores"
    return [
        f"{_start(e)}, with one tokenizer and one template, and draws its training rows from one data set in the order of "
        "its seed.",
        _limits(e),
        f"All answer the same {asked if answered is None else answered} held-out prompts{fewer}, with one sampler at temperature "
        f"{sampling.temperature:g}{truncated}{_inside(e.asked_in)} and the same random numbers per prompt and seed.",
        f"{judge} all answers without knowing whose they are.",
    ]


def _inside(environment: str | Mapping[str, Any] | None) -> str:
    """In which environment answers are written, in words."""
    kind = environment if isinstance(environment, str | None) else environment["kind"]
    return f", in the environment {kind}" if kind is not None else ""


def _start(e: Experiment) -> str:
    """Where arms start. Weights shared by all seeds are one draw, which no interval over seeds contains."""
    if e.initial_policy == "base":
        return "Every arm starts from the base model"
    supervised = e.sft_arm() if e.initial_policy == "sft" else None
    if supervised is not None and supervised.per_seed:
        return "Every arm of a seed starts from that seed's `sft` weights"
    weights = f"the same `{e.initial_policy}` weights"
    return f"Every arm and seed starts from {weights} (one draw of them, for which all intervals hold)"


def deviations(experiment: Experiment) -> list[str]:
    """What is not held equal between trained arms by their settings, in words; those without effect on an arm are not listed."""
    arms, e_of = [a for a in experiment.all_arms().values() if a.trained], experiment.environment_of
    out = []
    for f in fields(Train):
        if f.name in UNSEEN:
            continue
        counting = [a for a in arms if f.name not in CHOOSES or a.train.keep_checkpoint == "best"]
        values = {a.name: _setting(a, f.name) for a in counting}
        if _differ(values):
            out.append(f"train.{f.name}: {by_value(values)}")
    own: dict[str, dict[str, object]] = {
        "initial_policy": {a.name: a.initial_policy for a in arms},
        "data": {a.name: a.data or "the method's own split" for a in arms if not _samples(a)},
        "prompts": {a.name: a.data or "the data's prompts" for a in arms if _samples(a)},
        "sampling": {a.name: a.sampling for a in arms if _samples(a)},
        "environment": {a.name: e_of(a) or "none" for a in arms if _samples(a)},
        "lengths.prompt": {a.name: a.lengths.prompt for a in arms},
        "lengths.completion": {a.name: a.lengths.completion for a in arms},
    }
    return out + [f"{name}: {by_value(each)}" for name, each in own.items() if _differ(each)]


def spent_apart(ledgers: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """In which units the trained arms did not spend alike, in words, from what a seed of each has spent on average.

    >>> spent_apart({"dpo": {"tokens_trained": 1000.0, "flops": 2e9}, "hybrid": {"tokens_trained": 314000.0, "flops": 2e9}})
    ['tokens trained on: 1,000 (dpo); 314,000 (hybrid): 314 times as many']
    """
    out = []
    for unit, title in UNITS.items():
        known = {arm: value for arm, row in ledgers.items() if (value := row.get(unit)) is not None}
        low, high = min(known.values(), default=0.0), max(known.values(), default=0.0)
        if high <= low * EQUAL:
            continue
        ordered = dict(sorted(known.items(), key=lambda item: item[1]))
        shown = {arm: f"{value:.3g}" if unit == "flops" else f"{value:,.0f}" for arm, value in ordered.items()}
        out.append(f"{title}: {by_value(shown)}" + (f": {high / low:.3g} times as many" if low > 0 else ""))
    return out


def made_apart(origins: Mapping[str, Mapping[str, str]]) -> list[str]:
    """By what the arms' artifacts differ in how they were made, in words: `origins[arm]` has a value per aspect.

    >>> made_apart({"sft": {"torch": "2.13.0", "device": "cpu"}, "dpo": {"torch": "2.12.1", "device": "cpu"}})
    ['made with different torch: 2.13.0 (sft); 2.12.1 (dpo)']
    """
    aspects = dict.fromkeys(aspect for row in origins.values() for aspect in row)
    each = {aspect: {arm: row.get(aspect, "not recorded") for arm, row in origins.items()} for aspect in aspects}
    apart = {aspect: values for aspect, values in each.items() if _differ(values) or any(SEVERAL in v for v in values.values())}
    return [f"made with different {aspect}: {by_value(values)}" for aspect, values in apart.items()]


SEVERAL = " and "
"""Between the values of one arm whose artifacts differ among themselves."""


def _setting(arm: Arm, name: str) -> object:
    if name == "learning_rate":
        return arm.learning_rate
    if name == "adapter":
        return arm.train.adapter or "all weights"
    value = getattr(arm.train, name)
    return "not set" if value is None else value


def _samples(arm: Arm) -> bool:
    return arm.build(steps=arm.train.steps or 1).online


def _differ(values: Mapping[str, object]) -> bool:
    return len({repr(v) for v in values.values()}) > 1


def by_value(each: Mapping[str, object]) -> str:
    """Arms with one value together, the most common value first.

    >>> by_value({"dpo": 90, "rloo": 50, "grpo": 50})
    '50 (rloo, grpo); 90 (dpo)'
    """
    arms: dict[str, list[str]] = {}
    for name, value in each.items():
        arms.setdefault(str(value), []).append(name)
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in sorted(arms.items(), key=lambda i: -len(i[1])))


def _limits(e: Experiment) -> str:
    """Where limits differ between arms, only those of the comparison are equal."""
    equal = all(a.lengths == e.lengths for a in e.all_arms().values())
    where = "in training and in the comparison" if equal else "in the comparison"
    return f"Prompts keep {e.lengths.prompt} tokens and answers {e.lengths.completion}, {where}."
