"""What an experiment holds equal, and what it does not, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from evenhand.spec.arms import Train
from evenhand.spec.experiment import Experiment


def held_equal(experiment: Experiment) -> list[str]:
    """What every arm has in common, in words."""
    e, sampling = experiment, experiment.evaluation.sampling
    truncated = f", {sampling.cuts}" if sampling.cuts else ""
    return [
        f"{_start(e)}, with one tokenizer and one template, and draws its training rows from one data set in the order of "
        "its seed.",
        _limits(e),
        f"All answer the same {e.evaluation.prompts} held-out prompts, with one sampler at temperature {sampling.temperature:g}"
        f"{truncated} and the same random numbers per prompt and seed.",
        "One judge scores all answers without knowing whose they are.",
    ]


def _start(e: Experiment) -> str:
    """Where arms start. Weights shared by all seeds are one draw, which no interval over seeds contains."""
    if e.start == "base":
        return "Every arm starts from the base model"
    supervised = e.sft_arm() if e.start == "sft" else None
    if supervised is not None and supervised.per_seed:
        return "Every arm of a seed starts from that seed's `sft` weights"
    return f"Every arm and seed starts from the same `{e.start}` weights (one draw of them, for which all intervals hold)"


def deviations(experiment: Experiment) -> list[str]:
    """What is not held equal between trained arms, in words: training settings, start and reward that differ."""
    arms = [a for a in experiment.all_arms().values() if a.trained]
    out = []
    for f in fields(Train):
        if f.name in ("tokens_per_microbatch", "gradient_checkpointing", "checkpoint_every", "evaluate_every", "sample_every"):
            continue
        values = {a.name: getattr(a.train, f.name) for a in arms}
        if f.name == "adapter":
            values = {name: adapter or "all weights" for name, adapter in values.items()}
        if f.name == "learning_rate":
            values = {a.name: a.learning_rate for a in arms}
        if len({repr(v) for v in values.values()}) > 1:
            out.append(f"train.{f.name}: {by_value(values)}")
    own: dict[str, dict[str, object]] = {
        "start": {a.name: a.start for a in arms},
        "sampling": {a.name: a.sampling for a in arms},
        "lengths.prompt": {a.name: a.lengths.prompt for a in arms},
        "lengths.completion": {a.name: a.lengths.completion for a in arms},
    }
    for name, each in own.items():
        if len({repr(v) for v in each.values()}) > 1:
            out.append(f"{name}: {by_value(each)}")
    return out


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
