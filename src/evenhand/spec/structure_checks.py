"""Faults of an experiment's sections, before any of its arms is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evenhand.data.config import FOR_JUDGES, SPLITS
from evenhand.data.source import check_source
from evenhand.engines.registry import ENGINES
from evenhand.environments import registry as environments
from evenhand.errors import UserError, did_you_mean
from evenhand.spec import effects, evaluation_checks, split_checks
from evenhand.spec.cluster_checks import cluster_problems
from evenhand.spec.engine_checks import engine_problems
from evenhand.spec.experiment import Experiment
from evenhand.spec.faults import fault_of
from evenhand.spec.reward_resolution import models_in, resolved_reward, reward_problem, world_problem
from evenhand.synthesis.config import REVISED
from evenhand.trackers import TRACKERS
from evenhand.trackers.packages import missing_package


def structure_problems(e: Experiment) -> Iterator[UserError]:
    """Faults of what the sections name and need of each other."""
    yield from _comparison_problems(e)
    yield from _data_and_model_problems(e)
    yield from evaluation_checks.problems(e)
    yield from effects.problems(e)
    yield from _registered_problems(e)
    yield from _making_problems(e)
    yield from split_checks.problems(e)
    yield from _apart_problems(e)
    yield from _revised_problems(e)


def _comparison_problems(e: Experiment) -> Iterator[UserError]:
    """What is compared with what, over which seeds."""
    if not e.arms and not e.reward_models:
        fix = "add e.g. `dpo: {method: dpo}`, or a reward model under `reward_models`"
        yield UserError("an experiment needs at least one arm", where="arms", fix=fix)
    if e.arms and e.baseline_arm not in e.arms:
        yield UserError(f"no arm is called '{e.baseline}'", where="baseline", fix=did_you_mean(e.baseline, e.arms))
    if grid := [n for n in e.evaluation.length_grid if n < 1]:
        yield UserError(f"a completion limit of {grid[0]}", where="evaluation.length_grid", fix="name limits in tokens")
    if len(set(e.seeds)) != len(e.seeds) or not e.seeds:
        yield UserError(f"seeds must be different and at least one, got {list(e.seeds)}", where="seeds")


def _data_and_model_problems(e: Experiment) -> Iterator[UserError]:
    for split in SPLITS:
        yield from fault_of(check_source, getattr(e.data, split) or {}, where=f"data.{split}")
    if (not e.model.path) == (e.model.pretrain is None):
        yield UserError("name either `path` or `pretrain`", where="model", fix="a folder or hub name, or a world's own model")
    if e.model.pretrain is not None and e.data.world is None:
        yield UserError("`pretrain` needs a built-in world", where="model.pretrain", fix="add `data.world`, or give `model.path`")
    yield from world_problem(e.data.world, e.data.options)
    if e.data.world is None and not any(getattr(e.data, s) for s in SPLITS):
        yield UserError("no data is named", where="data", fix="name a `world`, or `preferences:`, `prompts:`, ...")


def _registered_problems(e: Experiment) -> Iterator[UserError]:
    """What is named by its kind: engine, tracker, runner, environments."""
    yield from fault_of(ENGINES.check, e.engine, where="engine")
    if e.tracker is not None:
        yield from fault_of(TRACKERS.check, e.tracker, where="tracker")
    yield from missing_package(e.tracker)
    yield from [*engine_problems(e), *cluster_problems(e)]
    yield from environment_problem(e.environment, "environment")
    yield from environment_problem(e.evaluation.environment, "evaluation.environment")


def environment_problem(settings: Any, where: str) -> Iterator[UserError]:
    """The fault of an environment's settings, if they have one."""
    if settings is not None:
        yield from fault_of(environments.check, settings, where=where)


def _making_problems(e: Experiment) -> Iterator[UserError]:
    """Of the sections that make data or a start."""
    for section in (e.annotate, e.revise):
        yield from section.problems() if section is not None else ()
    if e.annotate is not None and e.annotate.reward is not None:
        yield from reward_problem(e.annotate.reward, e, "annotate.reward")
        for name in sorted(models_in(resolved_reward(e.annotate.reward, e)) & set(e.recipes())):
            yield UserError(
                f"the reward model {name} is trained on the pairs that it is to label", where="annotate.reward",
                fix="label by a program, or by a reward model that exists (`path:`)",
            )  # fmt: skip
    if e.initial_policy == "sft" and e.sft is None:
        yield UserError(
            "`initial_policy: sft` but there is no `sft:` section",
            where="initial_policy",
            fix="add `sft:`, or `initial_policy: base`",
        )


def _apart_problems(e: Experiment) -> Iterator[UserError]:
    """Pairs set apart for judges that nobody asks for, or that are asked for and not set apart."""
    asked = [f"reward_models.{n}.data" for n, raw in e.reward_models.items() if raw.get("data") == FOR_JUDGES]
    if asked and not e.data.judge_share:
        fix = "add `data: {judge_share: 0.3}`: the share of the pairs that no arm learns from"
        yield UserError(f"nothing makes `{FOR_JUDGES}`", where=asked[0], fix=fix)
    if e.data.judge_share and not asked:
        fix = f"give a reward model `data: {FOR_JUDGES}`, or remove it"
        yield UserError("the pairs that it sets apart are used by nothing", where="data.judge_share", fix=fix)


def _revised_problems(e: Experiment) -> Iterator[UserError]:
    """Data that only a section `revise` makes, and who may learn from it."""
    made = {f"arms.{n}": raw for n, raw in e.arms.items()} | {f"reward_models.{n}": r for n, r in e.reward_models.items()}
    for where, raw in made.items():
        if raw.get("data") in REVISED and e.revise is None:
            yield UserError(f"nothing makes `{raw['data']}`", where=f"{where}.data", fix="add a `revise:` section")
    if e.sft is not None and e.sft.get("data") in REVISED:
        yield UserError("the stage that revises cannot learn from it", where="sft.data", fix="use an arm `{method: sft}`")
