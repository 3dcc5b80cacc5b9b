"""Faults of an experiment's sections, before any of its arms is looked at."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from evenhand.configfile.schema import from_signature
from evenhand.configfile.validation_errors import fault_of
from evenhand.data.config import FOR_JUDGES, SPLITS, Split
from evenhand.data.source import check_source
from evenhand.engines.registry import ENGINES, holds_copy
from evenhand.engines.server import ServerBackend
from evenhand.environments import registry as environments
from evenhand.errors import UserError, did_you_mean
from evenhand.spec import effects, evaluation_checks
from evenhand.spec.experiment import Experiment, Resources
from evenhand.spec.reward_resolution import models_in, resolved_reward, reward_problem, world_problem
from evenhand.stages import KINDS
from evenhand.synthesis.config import REVISED
from evenhand.trackers import TRACKERS
from evenhand.trackers.tools import missing_package
from evenhand.worlds import Annotator


def structure_problems(e: Experiment) -> Iterator[UserError]:
    """Faults of what the sections name and need of each other."""
    yield from _comparison_problems(e)
    yield from _data_and_model_problems(e)
    yield from evaluation_checks.problems(e)
    yield from effects.problems(e)
    yield from _registered_problems(e)
    yield from _making_problems(e)
    yield from split_problems(e)
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


def split_problems(e: Experiment) -> Iterator[UserError]:
    """Every fault that needs no device to find."""
    yield from _annotator(e.data.annotator, e.data.world, "data.annotator")
    for name, split in e.splits.items():
        yield from _split(e, split, name, f"splits.{name}")
    if e.splits and e.tune is not None:
        yield UserError(
            "prompts that tuning asks may be in them", where="splits", why="tuning takes its prompts out of `data` alone",
            fix="tune without `splits`, and copy what was chosen",
        )  # fmt: skip


def _split(e: Experiment, split: Split, name: str, where: str) -> Iterator[UserError]:
    if name in (*SPLITS, *REVISED) or name.startswith("heldout_"):
        yield UserError(f"'{name}' is a split already", where=where, fix="give it another name")
    if (split.source is None) == (split.rows is None):
        fix = "a `source`, or what the world makes: `rows: preferences`"
        yield UserError("name either `source` or `rows`", where=where, fix=fix)
        return
    if split.rows is None:
        for key in ("options", "annotator"):
            if getattr(split, key):
                yield UserError(f"`{key}` are a built-in world's", where=f"{where}.{key}", fix="remove it, or ask for `rows`")
        yield from fault_of(check_source, split.source or {}, where=f"{where}.source")
        return
    if e.data.world is None:
        yield UserError("`rows` are a built-in world's", where=f"{where}.rows", fix="name a `source`, or `data.world`")
        return
    if split.count < 1:
        yield UserError(f"{split.count} rows", where=f"{where}.count", fix="use at least 1")
    for fault in world_problem(e.data.world, {**e.data.options, **split.options}):
        yield UserError(fault.what, where=f"{where}.options", fix=fault.fix)
    yield from _annotator({**e.data.annotator, **split.annotator}, e.data.world, f"{where}.annotator")


def _annotator(told: Mapping[str, float], world: str | None, where: str) -> Iterator[UserError]:
    """What a world's annotator is told otherwise, tried on one that has no other fault."""
    if told and world is None:
        yield UserError("the annotator is a built-in world's", where=where, fix="name `data.world`, or remove it")
    try:
        Annotator(**{"temperature": 1.0, **from_signature(Annotator, {"temperature": 1.0, **told}, where)})
    except UserError as error:
        inside = error.where.startswith(where)
        yield error if inside else UserError(error.what, where=f"{where}.{error.where}", fix=error.fix)


def cluster_problems(e: Experiment) -> Iterator[UserError]:
    """A cluster that is asked for and not used, a package that is not there, resources of nothing, amounts below 0."""
    runtime = e.runtime
    if runtime.runner == "local":
        for key in ("address", "resources"):
            if getattr(runtime, key):
                why = "processes of this machine carry the stages out"
                yield UserError(
                    f"`{key}` has no effect here", where=f"runtime.{key}", why=why, fix="add `runner: ray`, or remove it"
                )
        return
    if importlib.util.find_spec("ray") is None:
        fix = "pip install 'evenhand[ray]', or use `runtime: {runner: local}`"
        yield UserError("the package ray is not installed", where="runtime.runner", fix=fix)
    known = (*sorted(KINDS), *e.arms)
    for name, asked in runtime.resources.items():
        where = f"runtime.resources.{name}"
        if name not in known:
            yield UserError(f"'{name}' is no kind of stage and no arm", where=where, fix=did_you_mean(name, known))
        for part in fields(Resources):
            if (amount := getattr(asked, part.name)) is not None and amount < 0:
                yield UserError(f"{amount:g} is out of range", where=f"{where}.{part.name}", fix="give a number of at least 0")


def engine_problems(e: Experiment) -> Iterator[UserError]:
    """A server's address and limits, and ranks that would all give it weights."""
    if not holds_copy(e.engine):
        return
    kind = e.engine if isinstance(e.engine, str) else e.engine["kind"]
    if kind == "server" and not isinstance(e.engine, str):
        if e.engine.get("load_by") == "adapter":
            yield from _adapter_problems(e)
        known = {"url", "key_env", "timeout", "attempts", "concurrency"}
        try:
            ServerBackend(model=str(e.engine["model"]), **{k: v for k, v in e.engine.items() if k in known})
        except UserError as error:
            yield error
        except (TypeError, KeyError):
            return  # a missing or an unknown key is said by whoever checks names
    if e.runtime.ranks > 1:
        yield UserError(
            f"`engine: {kind}` with {e.runtime.ranks} ranks", where="runtime.ranks",
            why="each rank samples its share, and would give the engine weights of its own",
            fix="use `engine: local`, which all ranks sample with, or `ranks: 1`",
        )  # fmt: skip


def _adapter_problems(e: Experiment) -> Iterator[UserError]:
    """Why arms are no adapters that one server could keep beside its base."""
    why = "with `engine: {load_by: adapter}` the server keeps its base, and is given an adapter of low rank for each arm"
    instead = "or use `load_by: reload`"
    arms = {name: arm for name, arm in e.all_arms().items() if arm.trained}
    for name, arm in arms.items():
        where, adapter = f"arms.{name}.train.adapter", arm.train.adapter
        if adapter is None:
            fix = f"give the arm an adapter (`train: {{adapter: {{rank: 16}}}}`), {instead}"
            yield UserError("this arm trains all weights", where=where, why=why, fix=fix)
            continue
        for key, plain in (("form", "lora"), ("quantize", None), ("modules_to_save", None)):
            if (getattr(adapter, key) or None) == plain:
                continue
            yield UserError(f"`{key}` changes more than that", where=f"{where}.{key}", why=why, fix=f"remove it, {instead}")
    starts = {arm.initial_policy: name for name, arm in arms.items()}
    if len(starts) > 1:
        one, two, *_ = starts.items()
        yield UserError(
            f"{one[1]} starts from {one[0]}, {two[1]} from {two[0]}", where="engine.load_by", why=why,
            fix=f"let all arms start from what the server was started with, {instead}",
        )  # fmt: skip
    sft = e.sft_arm()
    if sft is not None and sft.train.adapter is not None and "sft" in starts:
        yield UserError("the arms' start is an adapter itself", where="sft.train.adapter", why=why, fix=f"remove it, {instead}")
