"""Faults of how an experiment compares: its judge, pass@k, and the evaluations beside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from evenhand.configfile.validation_errors import fault_of
from evenhand.data.config import TRAINED
from evenhand.data.source import check_source
from evenhand.errors import UserError, did_you_mean
from evenhand.evaluation.benchmarks import BENCHMARKS, askable, questions_of
from evenhand.judges import config as judging
from evenhand.spec.evaluations import JurySettings, MoreEvaluation, ScoringJudge
from evenhand.spec.experiment import Experiment
from evenhand.spec.reward_resolution import graded_in, resolved_reward, reward_problem, world_problem

HELD_OUT = "heldout_"


def problems(e: Experiment) -> Iterator[UserError]:
    """Every fault that needs no device to find."""
    yield from _judge_problems(e, "judge")
    yield from _heldout_problem(e)
    yield from _pass_problems(e)
    for name in e.evaluation.best_of_arms:
        where = "evaluation.best_of_arms"
        if name not in e.arms:
            yield UserError(f"no arm is called '{name}'", where=where, fix=did_you_mean(name, e.arms))
        if e.evaluation.best_of_n < 2 or not e.reward_models:
            yield UserError(
                "nothing chooses among the answers", where=where, fix="set `best_of_n: 8` or more, and name a reward model"
            )
    for name, asked in e.evaluations.items():
        yield from _evaluation_problems(e, asked, f"evaluations.{name}")


def _heldout_problem(e: Experiment) -> Iterator[UserError]:
    """Data of which nothing can be held out, as far as it is seen without reading them."""
    data = e.data
    if not e.arms or data.world is not None or data.heldout_prompts or not data.sources:
        return
    apart = [split for split in TRAINED if split in data.sources and f"{HELD_OUT}{split}" not in data.sources]
    if apart and data.holdout > 0:
        return
    why = "`data.holdout` is 0" if apart else "the preferences have a held-out file of their own"
    fix = "name `data.heldout_prompts`" + (", or raise `data.holdout`" if apart else "; the prompts of that file will do")
    yield UserError("no prompts are held out for the comparison", where="data.heldout_prompts", why=why, fix=fix)


def _pass_problems(e: Experiment) -> Iterator[UserError]:
    if wrong := [k for k in e.evaluation.pass_at if k < 1]:
        yield UserError(f"pass@{wrong[0]}", where="evaluation.pass_at", fix="name numbers of answers, such as [1, 8]")
    elif e.evaluation.pass_at and e.evaluation.pass_answers < max(e.evaluation.pass_at):
        yield UserError(
            f"pass@{max(e.evaluation.pass_at)} from {e.evaluation.pass_samples} answers", where="evaluation.pass_samples",
            fix=f"draw at least {max(e.evaluation.pass_at)}, better twice as many",
        )  # fmt: skip
    if not e.evaluation.pass_at:
        return
    if not isinstance(e.judge, ScoringJudge):
        yield UserError(
            "pass@k needs a judge that says right or wrong of one answer", where="evaluation.pass_at",
            fix="judge by a reward of 1 and 0: `judge: {reward: ...}`",
        )  # fmt: skip
    elif (kind := graded_in(resolved_reward(e.judge.reward, e))) is not None:
        yield UserError(
            f"pass@k needs a judge that says right or wrong of one answer, and the reward {kind} says more",
            where="evaluation.pass_at", fix="judge by a reward of 1 and 0, or remove `pass_at`",
        )  # fmt: skip


def _judge_problems(e: Experiment, where: str) -> Iterator[UserError]:
    """Faults of the judge of an experiment, or of every judge of its jury."""
    if isinstance(e.judge, JurySettings) and len(e.judge.judges) < 2:
        yield UserError("a jury of one", where=f"{where}.judges", fix="name two judges or more, or give the judge itself")
    for path, judge in e.judges().items():
        place = where + path.removeprefix("judge")
        own = next((f for f in fields(judge) if f.name == "self_test"), None)  # people are not tested
        if place != where and own is not None and getattr(judge, own.name) != own.default:
            why = "the jury's own holds for every judge of it"
            yield UserError("`self_test` has no effect here", where=f"{place}.self_test", why=why, fix=f"set `{where}.self_test`")
        if isinstance(judge, ScoringJudge):
            yield from reward_problem(judge.reward, e, f"{place}.reward") if e.arms else ()
        elif fault := judging.problem(judge):
            yield fault.placed(place + fault.where.removeprefix("judge"))


def _evaluation_problems(e: Experiment, asked: MoreEvaluation, where: str) -> Iterator[UserError]:
    """Faults of one more evaluation."""
    named = [key for key in ("prompts", "world", "task") if getattr(asked, key)]
    if asked.benchmark is not None and named != ["prompts"]:
        yield UserError("a benchmark asks the questions of a file", where=f"{where}.benchmark", fix="give it as `prompts:` alone")
        return
    if len(named) != 1:
        what = f"`{named[0]}` and `{named[1]}`" if named else "nothing"
        yield UserError(f"it asks {what}", where=where, fix="name one of `prompts`, `world` and `task`")
        return
    if asked.count < 2:
        yield UserError(f"{asked.count} prompts", where=f"{where}.count", fix="use at least 2")
    if asked.completion is not None and asked.completion < 1:
        yield UserError(f"a completion limit of {asked.completion}", where=f"{where}.completion", fix="name a limit in tokens")
    without: tuple[str, ...] = (
        ("judge", "sampling", "completion", "options") if asked.task else ("shots", "include", "chat_template")
    )
    without += ("options",) if asked.prompts else ()
    for key in without:
        if getattr(asked, key) not in (None, False, {}):
            kind = "only worlds have them" if key == "options" else "a task has its own" if asked.task else "only tasks have it"
            yield UserError(f"`{key}` has no effect here: {kind}", where=f"{where}.{key}", fix="remove it")
    if asked.benchmark is not None:
        yield from _benchmark_problems(asked, where)
    elif asked.prompts is not None:
        yield from fault_of(check_source, asked.prompts, where=f"{where}.prompts")
    if asked.world is not None:
        yield from (fault.placed(f"{where}.world") for fault in world_problem(asked.world, asked.options))
    if asked.judge is not None or asked.world is not None:
        data = replace(e.data, world=asked.world, options=asked.options) if asked.world else e.data
        yield from _judge_problems(replace(e, judge=asked.judge or e.judge, data=data), f"{where}.judge")


def _benchmark_problems(asked: MoreEvaluation, where: str) -> Iterator[UserError]:
    """Faults of a benchmark and of its file of questions, which is read here: it is small, and another's is told at once."""
    known = askable()
    if asked.benchmark not in known:
        why = "it has no questions to ask" if asked.benchmark in BENCHMARKS else f"known: {', '.join(known)}"
        fix = did_you_mean(str(asked.benchmark), known)
        yield UserError(f"'{asked.benchmark}' cannot be asked", where=f"{where}.benchmark", why=why, fix=fix)
    elif not isinstance(asked.prompts, str):
        yield UserError("a benchmark reads its own file", where=f"{where}.prompts", fix="give the path of its questions")
    else:
        try:
            questions_of(asked.benchmark, asked.prompts)
        except UserError as error:
            yield UserError(f"{error.where}: {error.what}", where=f"{where}.prompts", why=error.why, fix=error.fix)
