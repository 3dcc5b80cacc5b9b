"""Whatever an arm names for itself is read by its training, or refused: every method by every key."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from evenhand.errors import UserError
from evenhand.methods import METHODS, Method
from evenhand.plan.plan import build
from evenhand.spec.arms import ARM_KEYS, INJECTED, Arm
from evenhand.spec.effects import MANY_STEPS, arm_problems
from evenhand.spec.experiment import Experiment
from evenhand.spec.read import read_experiment
from evenhand.train.config import Lengths, SamplingConfig, Train
from evenhand.train.method import build as built
from evenhand.train.policies import TEACHER
from tests.battery import variants

NAMES = sorted(METHODS)
LENGTH = {"kind": "length", "unit": "chars"}
PLAIN: dict[str, Any] = {
    "name": "effects", "seeds": [1], "data": {"world": "arithmetic"},
    "model": {"pretrain": {"documents": 20, "train": {"steps": 1}}},
    "sft": {"train": {"steps": 1}}, "lengths": {"prompt": 32, "completion": 8}, "train": {"steps": 40, "prompts_per_step": 4},
    "splits": {"other": {"rows": "preferences"}}, "judge": {"reward": "gold", "self_test": 0}, "runtime": {"device": "cpu"},
}  # fmt: skip


def method_of(name: str) -> Method:
    return built(name, {}, steps=40, max_tokens=8)


def signals(name: str) -> dict[str, Any]:
    """The least that an arm of the method says."""
    made = method_of(name)
    reward = {"reward": LENGTH} if made.rewarded else {}
    reward |= {"initial_policy": "rated"} if made.gate is not None else {}
    return {"method": name, **reward, **({"teacher": {"path": "hub/teacher"}} if made.reference == TEACHER else {})}


Reads = Callable[[Method], bool]
ALWAYS: Reads = lambda m: True  # noqa: E731
NEVER: Reads = lambda m: False  # noqa: E731
HELD_OUT_LOSS: Reads = lambda m: not m.online and m.data != "demonstrations"  # noqa: E731
ANSWERS: Reads = lambda m: m.network != "reward"  # noqa: E731
SAMPLES: Reads = lambda m: m.online  # noqa: E731

KEYS: dict[str, tuple[dict[str, Any], Reads]] = {
    "train.steps": ({"train": {"steps": 42}}, ALWAYS),
    "train.prompts_per_step": ({"train": {"prompts_per_step": 5}}, ALWAYS),
    "train.learning_rate": ({"train": {"learning_rate": 0.012}}, ALWAYS),
    "train.schedule": ({"train": {"schedule": "linear"}}, ALWAYS),
    "train.schedule_parameters": (
        {"train": {"schedule": "step", "schedule_parameters": {"factor": 0.5, "every": 7}}},
        ALWAYS,
    ),
    "train.warmup": ({"train": {"warmup": 0.4}}, ALWAYS),
    "train.weight_decay": ({"train": {"weight_decay": 0.1}}, ALWAYS),
    "train.optimizer": ({"train": {"optimizer": "adamw_8bit"}}, ALWAYS),
    "train.betas": ({"train": {"betas": [0.8, 0.9]}}, ALWAYS),
    "train.eps": ({"train": {"eps": 1e-6}}, ALWAYS),
    "train.clip": ({"train": {"clip": 2.0}}, ALWAYS),
    "train.tokens_per_microbatch": ({"train": {"tokens_per_microbatch": 512}}, ALWAYS),
    "train.gradient_checkpointing": ({"train": {"gradient_checkpointing": True}}, ALWAYS),
    "train.adapter": ({"train": {"adapter": {"rank": 2}}}, ALWAYS),
    "train.snapshots": ({"train": {"snapshots": [3]}}, ALWAYS),
    "train.stop_when": ({"train": {"stop_when": {"kl": 9.0}}}, ALWAYS),
    "train.evaluate_every": ({"train": {"evaluate_every": 3}}, HELD_OUT_LOSS),
    "train.sample_every": ({"train": {"sample_every": 3}}, ANSWERS),
    "train.router_loss": ({"train": {"router_loss": 0.1}}, ANSWERS),
    "train.validate_every": ({"train": {"validate_every": 3}}, NEVER),
    "train.choose_by": ({"train": {"choose_by": "margin"}}, NEVER),
    "train.validation_prompts": ({"train": {"validation_prompts": 7}}, NEVER),
    "sampling.temperature": ({"sampling": {"temperature": 0.7}}, SAMPLES),
    "sampling.top_p": ({"sampling": {"top_p": 0.7}}, SAMPLES),
    "sampling.top_k": ({"sampling": {"top_k": 7}}, SAMPLES),
    "sampling.min_p": ({"sampling": {"min_p": 0.1}}, SAMPLES),
    "lengths.prompt": ({"lengths": {"prompt": 16}}, lambda m: m.data != "comparisons"),
    "lengths.completion": ({"lengths": {"completion": 7}}, lambda m: m.data != "comparisons"),
    "per_seed": ({"per_seed": False}, ALWAYS),
    "initial_policy": ({"initial_policy": "base"}, ALWAYS),
    "data": ({"data": "other"}, ALWAYS),
}
"""A change of each key, and which methods read it."""
ELSEWHERE = {
    "train.epochs", "train.on_memory", "train.checkpoint_every", "train.keep_checkpoint", "method", "reward", "teacher",
    "reference_update", "environment", "staleness",
}  # fmt: skip
"""In place of another key; how and not what; with conditions that tests of their own are about."""


def test_no_key_is_left_out() -> None:
    named = {f"{section}.{f.name}" for section, cls in (("train", Train), ("sampling", SamplingConfig), ("lengths", Lengths))
             for f in fields(cls)}  # fmt: skip
    assert named | set(ARM_KEYS) - {"train", "sampling", "lengths"} == KEYS.keys() | ELSEWHERE


def experiment(name: str, arms: Mapping[str, Any]) -> Experiment:
    """The arms beside one that is not trained; reward models where those of this method belong."""
    if method_of(name).network != "reward":
        return read_experiment({**PLAIN, "arms": {"plain": {"method": "start"}, **arms}}).value
    budget = PLAIN["train"]
    mixed = {"rated": {"method": "attribute_reward_model"}} if method_of(name).gate is not None else {}
    recipes = {arm: raw | {"train": {**budget, **raw.get("train", {})}} for arm, raw in (mixed | arms).items()}
    return read_experiment({**PLAIN, "reward_models": recipes}).value


@pytest.mark.parametrize("name", variants.lanes(NAMES))
def test_every_key_of_every_method_changes_its_stage_or_is_refused(name: str) -> None:
    """All changes of a method are arms of one experiment: two with one stage key would be one node of the graph."""
    made, least = method_of(name), signals(name)
    read = {key: least | change for key, (change, reads) in KEYS.items() if reads(made)}
    if made.reference_update is not None and made.reference_update.mix < 1:
        del read["train.adapter"]  # refused for a reason of its own
    if made.gate is not None:
        del read["train.adapter"], read["initial_policy"]  # its gate alone learns, on one kind of model
    refused = {key: least | change for key, (change, reads) in KEYS.items() if not reads(made)}
    plan = build(experiment(name, {"as it is": least, **read}))
    nodes = [seeds[1] for arm, seeds in (plan.arms | plan.reward_models).items() if arm not in ("plain", "rated")]
    assert len({plan[node].key for node in nodes}) == len(nodes) == len(read) + 1
    with pytest.raises(UserError) as caught:
        experiment(name, refused)
    for key in refused:
        place = key if key.startswith(("train.", "sampling.")) else key.split(".")[0]
        assert f"s.{key}.{place}: `{place.split('.')[-1]}` has no effect here" in str(caught.value)


def described(value: Any) -> Any:
    """What something is made of, functions by their names and what they hold: equal for two of equal parts."""
    if is_dataclass(value) and not isinstance(value, type):
        return (type(value).__name__, [(f.name, described(getattr(value, f.name))) for f in fields(value)])
    if isinstance(value, partial):
        return ("partial", described(value.func), described(value.args), described(value.keywords))
    if isinstance(value, Mapping):
        return sorted((str(key), described(own)) for key, own in value.items())
    if isinstance(value, list | tuple):
        return [described(own) for own in value]
    if isinstance(value, FunctionType):
        return (value.__qualname__, [described(cell.cell_contents) for cell in value.__closure__ or ()])
    if isinstance(value, MethodType):
        return (value.__func__.__qualname__, described(value.__self__))
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


WORDS: Mapping[str, tuple[str, ...]] = {
    "kl_estimator": ("k2", "k1", "exact"), "kl_in": ("loss", "reward"), "advantage": ("centre", "rank"), "distance": ("kl",),
    "correction": ("mask_sequences", "truncate"), "reduce": ("sequence_mean",), "critic": ("separate", "head"),
    "baseline": ("running_baseline", "none"), "divergence": ("js", "jensen_shannon", "alpha"), "shape": ("logistic", "square"),
    "per": ("mean", "token_mean", "token"), "pairs": ("rejection", "random", "rejection_sampling"), "initialise": ("start",),
    "partner": ("start", "previous", "data"), "reference": ("previous", "generator", "none"), "aggregate": ("product", "last"),
    "separator": ("; ",), "debias": ("coherence",), "words": ("{prompt} ({answer})",),
}  # fmt: skip
"""Choices of the parameters that take a word, some of which are not every method's."""


def others(name: str, hint: Any, default: Any) -> Iterator[Any]:
    """Values of a parameter's type that are not its default."""
    if get_origin(hint) is Literal:
        yield from (value for value in get_args(hint) if value != default)
    elif hint is bool:
        yield not default
    elif hint is str:
        yield from (word for word in WORDS[name] if word != default)
    elif float in (hint, *get_args(hint)) and not isinstance(default, tuple):
        yield from (1.5 * (default or 0.0) + 0.01, 0.5 * (default or 0.0) + 0.005, 0.3)
    elif hint is int:
        yield from (default + 1, 2 * default, 2, 4)


def made_by(arm: Arm) -> Any:
    """What the arm's method is over few steps and over many: few may make one method of several numbers of rounds."""
    return [described(arm.build(steps=steps)) for steps in (40, MANY_STEPS)]


WITH_OTHERS = ("weights", "attributes", "temperatures", "renew", "epochs", "kl_in")
"""Parameters that have no other value by themselves, or a list of them."""


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_every_method_makes_another_method_or_is_refused(name: str) -> None:
    declared, hints = inspect.signature(METHODS[name]).parameters, get_type_hints(METHODS[name])
    usual = Arm(name="x", method=name, lengths=Lengths(completion=8))
    plain = made_by(usual)
    for key, parameter in declared.items():
        accepted = []
        for value in others(key, hints[key], parameter.default) if key not in INJECTED else ():
            if value == parameter.default:
                continue
            arm = replace(usual, parameters={key: value}, train=Train(steps=40))
            try:
                made = made_by(arm)
            except UserError:
                continue
            told = [fault.where for fault in arm_problems(arm, {"method": name, key: value}, "arms.x")]
            assert told == ([f"arms.x.{key}"] if made == plain else []), (key, value)
            accepted.append(value)
        assert accepted or key in (*INJECTED, *WITH_OTHERS), key


@pytest.mark.parametrize(
    ("arm", "key"),
    [
        ({"method": "rloo", "clip": 0.1}, "clip"),
        ({"method": "dr_grpo", "kl_estimator": "k2"}, "kl_estimator"),
        ({"method": "dr_grpo", "kl_in": "reward"}, "kl_in"),
        ({"method": "grpo", "correction": "mask_tokens"}, "correction"),
        ({"method": "grpo", "importance_low": 0.5}, "importance_low"),
        ({"method": "grpo", "truncated_in_baseline": False}, "truncated_in_baseline"),
        ({"method": "reinforce", "value": 0.5}, "value"),
        ({"method": "f_dpo", "alpha": 0.3}, "alpha"),
        ({"method": "iterative_dpo", "rejection_temperature": 0.7}, "rejection_temperature"),
        ({"method": "best_of_n", "sampling": {"temperature": 0.7}}, "sampling"),
        ({"method": "best_of_n", "train": {"steps": 3}}, "train.steps"),
        ({"method": "start", "per_seed": False}, "per_seed"),
    ],
)
def test_what_nothing_reads_is_refused(arm: dict[str, Any], key: str) -> None:
    reward = {} if arm["method"] in ("f_dpo", "start") else {"reward": LENGTH}
    with pytest.raises(UserError, match=rf"arms\.x\.{key}: `{key.split('.')[-1]}` has no effect here"):
        experiment("dpo", {"x": arm | reward})


@pytest.mark.parametrize(
    "arm",
    [
        {"method": "rloo", "clip": 0.1, "updates": 2},
        {"method": "dr_grpo", "kl_estimator": "k2", "kl": 0.1},
        {"method": "grpo", "correction": "mask_tokens", "importance": 2.0},
        {"method": "reinforce", "value": 0.5, "baseline": "value"},
        {"method": "best_of_n", "train": {"tokens_per_microbatch": 512}},
        {"method": "iterative_dpo", "rounds": 2, "train": {"steps": 2}},
    ],
)
def test_the_same_where_it_is_read(arm: dict[str, Any]) -> None:
    assert experiment("dpo", {"x": arm | {"reward": LENGTH}}).arm("x").method == arm["method"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"evaluation": {"pass_samples": 8}}, "evaluation.pass_samples"),
        ({"evaluation": {"best_of_n": 4}}, "evaluation.best_of_n"),
        ({"data": {"world": "arithmetic", "holdout": 0.2}}, "data.holdout"),
        ({"sft": {"train": {"steps": 1, "evaluate_every": 1}}}, "sft.train.evaluate_every"),
        ({"sft": {"train": {"steps": 1}, "reward": LENGTH}}, "sft.reward"),
        ({"sft": {"train": {"steps": 1}, "initial_policy": "base"}}, "sft.initial_policy"),
        ({"sft": {"train": {"steps": 1}, "initial_policy": "plain"}}, "sft.initial_policy"),
        ({"sft": {"train": {"steps": 1}, "sampling": {"top_k": 4}}}, "sft.sampling.top_k"),
        ({"judge": {"kind": "jury", "judges": {"a": {"reward": "gold", "self_test": 3}, "b": {"reward": LENGTH}}}},
         "judge.judges.a.self_test"),
        ({"evaluations": {"x": {"prompts": "ask.jsonl", "options": {"digits": 2}}}}, "evaluations.x.options"),
        ({"evaluations": {"x": {"world": "arithmetic", "chat_template": True}}}, "evaluations.x.chat_template"),
    ],
)  # fmt: skip
def test_sections_that_nothing_reads_are_refused(change: dict[str, Any], place: str) -> None:
    with pytest.raises(UserError) as caught:
        read_experiment({**PLAIN, "arms": {"plain": {"method": "start"}}, **change})
    assert f"{place}: `{place.split('.')[-1]}` has no effect here" in str(caught.value)


def test_a_jury_takes_people_who_are_never_tested() -> None:
    jury = {"kind": "jury", "judges": {"people": {"kind": "human"}, "program": {"reward": LENGTH}}}
    read = read_experiment({**PLAIN, "arms": {"plain": {"method": "start"}, "dpo": {"method": "dpo"}}, "judge": jury}).value
    assert list(read.judges()) == ["judge.judges.people", "judge.judges.program"]


def test_a_shared_setting_is_for_those_that_read_it() -> None:
    """It is the same for all arms, so that it is no difference between them either."""
    from evenhand.results.fairness import deviations

    shared = {
        "sampling": {"top_k": 7},
        "train": {**PLAIN["train"], "learning_rate": 0.1, "evaluate_every": 3, "validation_prompts": 7},
    }
    arms = {"dpo": {"method": "dpo"}, "rloo": {"method": "rloo", "reward": LENGTH}}
    assert deviations(read_experiment({**PLAIN, **shared, "arms": arms}).value) == []
