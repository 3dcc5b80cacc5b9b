"""How an experiment compares: answers to held-out prompts, verdicts on them, and what is measured beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evenhand.judges.config import OwnJudge
from evenhand.plan.graph import HELDOUT, Graph, judged_by
from evenhand.spec.experiment import Judge
from evenhand.stages.frontier import FrontierSpec
from evenhand.stages.generate import GenerateSpec
from evenhand.stages.judge import JudgedBy, JudgeSpec, ScoredBy
from evenhand.stages.judge_self_test import JudgeSelfTestSpec
from evenhand.stages.sample_rewards import SampleRewardsSpec

BySeed = Mapping[str, Mapping[int, str]]
"""arm -> seed -> node."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Answers and verdicts of every arm and seed under one completion limit."""

    generations: BySeed
    verdicts: BySeed


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Where the comparison's artifacts are: see `Plan`."""

    generations: BySeed
    verdicts: BySeed
    judge_test: str | None
    reward_samples: str | None
    frontiers: BySeed
    grid: Mapping[int, Judged]


def compare(graph: Graph) -> Compared:
    """Every stage that follows training, generations before verdicts, so that the board shows them in this order."""
    if not graph.e.arms:  # reward models alone: their own held-out accuracy is what is asked
        return Compared(generations={}, verdicts={}, judge_test=None, reward_samples=reward_samples(graph), frontiers={}, grid={})
    own = judged(graph, graph.e.lengths.completion)
    return Compared(
        generations=own.generations,
        verdicts=own.verdicts,
        judge_test=self_test(graph, own.generations),
        reward_samples=reward_samples(graph),
        frontiers=frontiers(graph),
        grid={limit: judged(graph, limit) for limit in sorted(set(graph.e.evaluation.length_grid))},
    )


def judged(graph: Graph, limit: int) -> Judged:
    """Every arm's answers of at most `limit` tokens, judged against the baseline's under the same limit.

    Under the experiment's own limit these are the stages of the comparison itself.
    """
    answers: dict[str, dict[int, str]] = {name: {} for name in graph.e.arms}
    verdicts: dict[str, dict[int, str]] = {name: {} for name in graph.e.arms}
    for seed in graph.e.seeds:  # a seed of all arms before the next one, so that a run that is stopped has something to compare
        for name in graph.e.arms:
            answers[name][seed] = generation(graph, name, seed, limit)
    for seed in graph.e.seeds:
        for name in graph.e.arms:
            verdicts[name][seed] = verdict(graph, name, seed, answers, limit)
    return Judged(answers, verdicts)


def generation(graph: Graph, name: str, seed: int, limit: int) -> str:
    """Answers of one arm to the held-out prompts."""
    arm, asked = graph.arms[name], graph.questions
    start = graph.models[graph.e.start, seed]
    inputs = {"policy": graph.models[f"arms/{name}", seed], "start": start, "data": graph.asked}
    cost = f"{asked.count} held-out prompts" if asked.split == HELDOUT else f"{asked.count} validation prompts"
    chooses = arm.best_of > 1 and arm.reward is not None
    reward = graph.reward_spec(arm.reward) if chooses and arm.reward is not None else None
    if reward is not None and arm.reward is not None:
        inputs |= graph.reward_inputs(arm.reward, seed)
        cost += f" x {arm.best_of}"
    lengths = replace(graph.e.lengths, completion=limit)
    spec = GenerateSpec(
        prompts=asked.count, split=asked.split, sampling=graph.e.evaluation.sampling, best_of=arm.best_of if chooses else 1,
        reward=reward,
        setup=graph.setup_for(lengths=lengths, tokens_per_microbatch=arm.train.tokens_per_microbatch),
    )  # fmt: skip
    place, row = _under(graph, limit, name)
    place = f"{place}generations/{name}/seed-{seed}"
    return graph.add(place, spec, inputs, seed=seed, row=f"{row} answers", column=f"seed {seed}", cost=cost)


def verdict(graph: Graph, name: str, seed: int, answers: BySeed, limit: int) -> str:
    """One arm's answers against the baseline's of the same seed."""
    names = list(graph.e.reward_models) if graph.questions.split == HELDOUT else []  # proxies are for the report
    judge, proxies = _judged_by(graph), {n: graph.reward_spec(n) for n in names}
    spec = JudgeSpec(
        judge=judge, proxies=proxies, setup=graph.setup_for(lengths=replace(graph.e.lengths, completion=limit)),
    )  # fmt: skip
    inputs = {"answers": answers[name][seed], "baseline": answers[graph.e.baseline_arm][seed]}
    inputs |= _judge_inputs(graph, seed)
    for n in names:
        inputs |= graph.model_inputs(n, seed)
    place, row = _under(graph, limit, name)
    place = f"{place}verdicts/{name}/seed-{seed}"
    return graph.add(place, spec, inputs, seed=seed, row=f"{row} verdicts", column=f"seed {seed}", cost=_judge_cost(graph))


def _under(graph: Graph, limit: int, arm: str) -> tuple[str, str]:
    """Where stages under this limit are, and the board's row of the arm: the experiment's own limit goes without saying."""
    return ("", arm) if limit == graph.e.lengths.completion else (f"length_grid/{limit}/", f"{arm}, {limit} tokens,")


def self_test(graph: Graph, answers: BySeed) -> str | None:
    """The judge on pairs whose verdict is known: answers of the data, or the baseline's where the data have none."""
    size, seed = graph.e.judge.self_test, graph.e.seeds[0]
    if not size:
        return None
    inputs = {"data": graph.data, "answers": answers[graph.e.baseline_arm][seed], **_judge_inputs(graph, seed)}
    judge = _judged_by(graph)
    spec = JudgeSelfTestSpec(judge=judge, prompts=size, setup=graph.setup)
    return graph.add("judge/self-test", spec, inputs, row="judge self-test", cost=f"{size} prompts")


def reward_samples(graph: Graph) -> str | None:
    """Several answers per held-out prompt, scored by every reward model of the first seed, and by a judge that scores."""
    count, seed, names = graph.e.evaluation.best_of_n, graph.e.seeds[0], list(graph.e.reward_models)
    if count < 2 or not names:
        return None
    gold, proxies = _reward(_judged_by(graph)) if graph.e.arms else None, {n: graph.reward_spec(n) for n in names}
    spec = SampleRewardsSpec(
        proxies=proxies, gold=gold, prompts=graph.e.evaluation.prompts, completions_per_prompt=count,
        sampling=graph.e.evaluation.sampling, setup=graph.setup,
    )  # fmt: skip
    judge = _judge_inputs(graph, seed) if graph.e.arms else {}
    inputs = {"start": graph.models[graph.e.start, seed], "data": graph.asked, **judge}
    for n in names:
        inputs |= graph.model_inputs(n, seed)
    cost = f"{graph.e.evaluation.prompts} prompts x {count}"
    return graph.add("samples/start", spec, inputs, row="reward samples", cost=cost)


def frontiers(graph: Graph) -> dict[str, dict[int, str]]:
    """For every trained arm that was sampled in training: its samples under the judge, where the judge scores."""
    if not (graph.e.evaluation.frontier and isinstance(graph.e.judge, Judge)):
        return {}
    found: dict[str, dict[int, str]] = {}
    names = list(graph.e.reward_models)
    gold, proxy = graph.reward_spec(graph.e.judge.reward), graph.reward_spec(names[0]) if names else None
    spec = FrontierSpec(gold=gold, proxy=proxy, setup=graph.setup)
    for arm in graph.arms.values():
        if not (arm.trained and arm.train.sample_every):
            continue
        for seed in graph.e.seeds if arm.per_seed else graph.e.seeds[:1]:
            models = {"arm": graph.models[f"arms/{arm.name}", seed], "start": graph.models[graph.e.start, seed]}
            inputs = {**models, "data": graph.data, **_judge_inputs(graph, seed)}
            inputs |= graph.model_inputs(names[0], seed) if names else {}
            name, row = f"frontier/{arm.name}/seed-{seed}", f"{arm.name} frontier"
            cost = "score samples of training"
            found.setdefault(arm.name, {})[seed] = graph.add(name, spec, inputs, row=row, column=f"seed {seed}", cost=cost)
    return found


def _judged_by(graph: Graph) -> JudgedBy:
    judge = graph.e.judge
    if isinstance(judge, Judge):
        return JudgedBy(settings=ScoredBy(reward=graph.reward_spec(judge.reward), tie=judge.tie))
    return judged_by(judge)


def _reward(by: JudgedBy) -> Mapping[str, Any] | None:
    """The reward that scores answers as the judge does; None for a judge of pairs."""
    return by.settings.reward if isinstance(by.settings, ScoredBy) else None


def _judge_inputs(graph: Graph, seed: int) -> dict[str, str]:
    return graph.reward_inputs(graph.e.judge.reward, seed) if isinstance(graph.e.judge, Judge) else {}


def _judge_cost(graph: Graph) -> str:
    pairs = graph.questions.count
    if isinstance(graph.e.judge, Judge):
        return "score both answers"
    if isinstance(graph.e.judge, OwnJudge):
        return f"{pairs} pairs"
    return f"{pairs} pairs in " + ("one order" if getattr(graph.e.judge, "orders", "both") == "one" else "both orders")
