"""The evaluations beside the comparison: the same stages over other prompts, judges and tasks. Nothing of training changes."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

from evenhand.data.config import DataConfig
from evenhand.plan import evaluation, training
from evenhand.plan.graph import HELDOUT, BySeed, Graph, Questions, of_every_arm
from evenhand.spec.evaluations import MoreEvaluation
from evenhand.stages.data import DataSpec
from evenhand.stages.harness import HarnessSpec
from evenhand.stages.questions import QuestionsSpec
from evenhand.store.fingerprint import file_fingerprint, folder_fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEvaluation:
    """Where an evaluation's artifacts are: answers and verdicts of every arm and seed; a task has no answers of its own."""

    verdicts: BySeed
    generations: BySeed = field(default_factory=dict)
    judge_test: str | None = None


def more_evaluations(graph: Graph) -> dict[str, PlannedEvaluation]:
    """Every entry of `evaluations`, by name. Tuning, which asks other questions, has none."""
    if graph.questions.split != HELDOUT:
        return {}
    found = {}
    for name, asked in graph.e.evaluations.items():
        found[name] = _task(graph, name, asked) if asked.task is not None else _judged(graph, name, asked)
    return found


def _task(graph: Graph, name: str, asked: MoreEvaluation) -> PlannedEvaluation:
    assert asked.task is not None
    own = None if asked.include is None else folder_fingerprint(Path(asked.include).expanduser())
    spec = HarnessSpec(
        task=asked.task, limit=asked.count, shots=asked.shots, chat_template=asked.chat_template, include=asked.include,
        include_fingerprint=own, setup=graph.setup,
    )  # fmt: skip

    def items(arm: str, seed: int) -> str:
        return graph.add(
            f"evaluations/{name}/{arm}/seed-{seed}", spec, {"policy": graph.models[f"arms/{arm}", seed]}, seed=seed,
            row=f"{arm} {name}", column=f"seed {seed}", cost=f"{asked.task}, {asked.count} items",
        )  # fmt: skip

    return PlannedEvaluation(verdicts=of_every_arm(graph, items))


def _judged(graph: Graph, name: str, asked: MoreEvaluation) -> PlannedEvaluation:
    """The comparison's own stages on a view of the graph that asks these prompts and this judge; its nodes are the graph's."""
    view, e = copy(graph), graph.e
    data = replace(e.data, world=asked.world, options=asked.options) if asked.world else e.data
    sampling = asked.sampling or e.evaluation.sampling
    view.e = replace(
        e, data=data, judge=asked.judge or e.judge, evaluation=replace(e.evaluation, prompts=asked.count, sampling=sampling)
    )
    view.prefix, view.questions, view.asked = (
        f"evaluations/{name}/",
        Questions(HELDOUT, asked.count),
        _prompts(graph, name, asked),
    )
    limit = asked.completion or e.lengths.completion
    if limit != e.lengths.completion:
        view.e = replace(view.e, lengths=replace(e.lengths, completion=limit))
    answers = evaluation.answered(view, limit)
    tested = evaluation.self_test(view, answers)
    verdicts = evaluation.verdicts(view, answers, limit, tested)
    return PlannedEvaluation(verdicts=verdicts, generations=answers, judge_test=tested)


def _prompts(graph: Graph, name: str, asked: MoreEvaluation) -> str:
    row, cost = f"{name} prompts", f"{asked.count} prompts"
    if asked.benchmark is not None:
        return graph.add(f"evaluations/{name}/prompts", _questions(asked), {}, row=row, cost=cost)
    if asked.world:
        source = DataConfig(world=asked.world, options=asked.options, sizes={HELDOUT: asked.count})
    else:
        source = DataConfig(heldout_prompts=asked.prompts)
    spec = DataSpec(
        source=source,
        only=(HELDOUT,),
        fingerprints=training.data_bytes(source),
        world_version=training.world_version(source),
        heldout_for=f"evaluations.{name}.prompts",
    )
    return graph.add(f"evaluations/{name}/prompts", spec, {}, seed=graph.e.data.seed, row=row, cost=cost)


def _questions(asked: MoreEvaluation) -> QuestionsSpec:
    path = Path(str(asked.prompts)).expanduser()
    return QuestionsSpec(benchmark=str(asked.benchmark), path=str(path), fingerprint=file_fingerprint(path), count=asked.count)
