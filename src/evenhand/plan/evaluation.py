"""How an experiment compares: answers to held-out prompts, verdicts on them, and what is measured beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from evenhand.judges.config import Comparing, Human, OwnJudge
from evenhand.plan.graph import HELDOUT, SHARED, BySeed, Graph, judged_by, of_every_arm
from evenhand.plan.scores import Scored, of_answers, of_samples, of_training
from evenhand.spec.evaluations import JurySettings, ScoringJudge
from evenhand.stages.frontier import FrontierSpec
from evenhand.stages.generate import GenerateSpec
from evenhand.stages.judge import JudgedBy, JudgeSpec, JuryRule, ScoredBy
from evenhand.stages.judge_self_test import JudgeSelfTestSpec
from evenhand.stages.sample_rewards import SampleRewardsSpec
from evenhand.stages.snapshots import steps_of


@dataclass(frozen=True, slots=True)
class JudgedArms:
    """Answers and verdicts of every arm and seed under one completion limit."""

    generations: BySeed
    verdicts: BySeed


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonArtifacts:
    """Where the comparison's artifacts are, by arm and seed."""

    generations: BySeed = field(default_factory=dict)
    verdicts: BySeed = field(default_factory=dict)
    judge_test: str | None = None
    reward_samples: str | None = None
    """Several answers of the start to every prompt."""
    arm_samples: BySeed = field(default_factory=dict)
    """Several scored answers per prompt, for best-of-n curves of that arm."""
    frontiers: BySeed = field(default_factory=dict)
    scored: Scored = field(default_factory=dict)
    """Every reward model's scores of answers, samples, and samples of training (under the arm's node)."""
    grid: Mapping[int, JudgedArms] = field(default_factory=dict)
    """By completion limit: the answers and verdicts of `evaluation.length_grid`."""
    passes: BySeed = field(default_factory=dict)
    """Several answers per prompt, scored, for pass@k."""
    snapshots: Mapping[int, JudgedArms] = field(default_factory=dict)
    """By step: the answers and verdicts of weights on the way, of the arms that keep them."""


def compare(graph: Graph) -> ComparisonArtifacts:
    """Every stage that follows training, generations before verdicts, so that the board shows them in this order."""
    if not graph.e.arms:  # reward models alone: their own held-out accuracy is what is asked
        samples = reward_samples(graph)
        return ComparisonArtifacts(reward_samples=samples, scored=of_samples(graph, samples, {}))
    limit = graph.e.lengths.completion
    answers = answered(graph, limit)
    tested = self_test(graph, answers)  # before any verdict, which all wait for it
    judged, samples, drawn, followed = (
        verdicts(graph, answers, limit, tested), reward_samples(graph), arm_samples(graph), frontiers(graph)
    )  # fmt: skip
    return ComparisonArtifacts(
        generations=answers,
        verdicts=judged,
        judge_test=tested,
        reward_samples=samples,
        arm_samples=drawn,
        frontiers=followed,
        scored={**of_answers(graph, answers), **of_samples(graph, samples, drawn), **of_training(graph, followed)},
        grid={limit: _at_limit(graph, limit, tested) for limit in sorted(set(graph.e.evaluation.length_grid))},
        passes=passes(graph, tested),
        snapshots=over_training(graph, answers, tested),
    )


def _at_limit(graph: Graph, limit: int, tested: str | None) -> JudgedArms:
    """Under the experiment's own limit these are the stages of the comparison itself."""
    answers = answered(graph, limit)
    return JudgedArms(answers, verdicts(graph, answers, limit, tested))


def answered(graph: Graph, limit: int) -> dict[str, dict[int, str]]:
    """Every arm's answers of at most `limit` tokens."""
    return of_every_arm(graph, lambda name, seed: generation(graph, name, seed, limit))


def verdicts(graph: Graph, answers: BySeed, limit: int, tested: str | None) -> dict[str, dict[int, str]]:
    """Every arm's answers judged against the baseline's under the same limit, by a judge that passed the self-test `tested`."""
    return of_every_arm(graph, lambda name, seed: verdict(graph, name, seed, answers, limit, tested))


def over_training(graph: Graph, answers: BySeed, tested: str | None) -> dict[int, JudgedArms]:
    """Answers and verdicts of the weights that arms keep on the way, against the baseline's final answers."""
    steps: dict[str, tuple[int, ...]] = {}
    for arm in graph.arms.values():
        if arm.trained and arm.train.snapshots:
            method = arm.build(steps=arm.train.steps or 1)
            steps[arm.name] = steps_of(arm.train, method, arm.train.steps or NO_END)
    limit, found = graph.e.lengths.completion, {}
    for step in sorted({step for own in steps.values() for step in own}):
        arms, baseline = [a for a, own in steps.items() if step in own], graph.e.baseline_arm
        own: dict[str, dict[int, str]] = {baseline: dict(answers[baseline])} | {
            f"{a}{AT_STEP}{step}": {s: generation(graph, a, s, limit, step) for s in graph.e.seeds} for a in arms
        }
        judged = {a: {s: verdict(graph, f"{a}{AT_STEP}{step}", s, own, limit, tested) for s in graph.e.seeds} for a in arms}
        found[step] = JudgedArms({a: own[f"{a}{AT_STEP}{step}"] for a in arms}, judged)
    return found


AT_STEP = "/step-"
NO_END = 10**9
"""Steps of an arm whose budget is in epochs: how many they are is known when it trains."""


def passes(graph: Graph, tested: str | None) -> dict[str, dict[int, str]]:
    """Several answers of every arm to every held-out prompt, each right or wrong, for pass@k."""
    given, gold = graph.e.evaluation, _reward(_judged_by(graph))
    if not given.pass_at or gold is None:
        return {}
    spec = SampleRewardsSpec(
        gold=gold, prompts=graph.questions.count, completions_per_prompt=given.pass_answers,
        sampling=given.sampling, setup=graph.setup, environment=graph.e.asked_in,
    )  # fmt: skip

    def answers(name: str, seed: int) -> str:
        inputs = {"start": graph.models[f"arms/{name}", seed], "data": graph.asked, **_judge_inputs(graph, seed)}
        return graph.add(
            f"pass/{name}/seed-{seed}", spec, inputs, seed=seed, row=f"{name} pass@k", column=f"seed {seed}",
            cost=f"{graph.questions.count} prompts x {given.pass_answers}", after=(tested,) if tested is not None else (),
        )  # fmt: skip

    return of_every_arm(graph, answers)


def generation(graph: Graph, name: str, seed: int, limit: int, snapshot: int | None = None) -> str:
    """Answers of one arm to the held-out prompts; with `snapshot` those of its weights after that step."""
    arm, asked = graph.arms[name], graph.questions
    start = graph.models[graph.e.initial_policy, seed]
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
        reward=reward, snapshot=snapshot, environment=graph.e.asked_in,
        setup=graph.setup_for(lengths=lengths, tokens_per_microbatch=arm.train.tokens_per_microbatch),
    )  # fmt: skip
    name = name if snapshot is None else f"{name}{AT_STEP}{snapshot}"
    place, row = _under(graph, limit, name)
    place = f"{place}generations/{name}/seed-{seed}" if snapshot is None else f"over_training/{name}/answers/seed-{seed}"
    return graph.add(place, spec, inputs, seed=seed, row=f"{row} answers", column=f"seed {seed}", cost=cost)


def verdict(graph: Graph, name: str, seed: int, answers: BySeed, limit: int, tested: str | None = None) -> str:
    """One arm's answers against the baseline's of the same seed."""
    spec = JudgeSpec(judge=_judged_by(graph), setup=graph.setup_for(lengths=replace(graph.e.lengths, completion=limit)))
    inputs = {"answers": answers[name][seed], "baseline": answers[graph.e.baseline_arm][seed]}
    inputs |= _judge_inputs(graph, seed)
    place, row = _under(graph, limit, name)
    place = f"over_training/{name}/verdicts/seed-{seed}" if AT_STEP in name else f"{place}verdicts/{name}/seed-{seed}"
    return graph.add(
        place, spec, inputs, seed=seed, row=f"{row} verdicts", column=f"seed {seed}", cost=_judge_cost(graph),
        after=(tested,) if tested is not None else (),
    )  # fmt: skip


def _under(graph: Graph, limit: int, arm: str) -> tuple[str, str]:
    """Where stages under this limit are, and the board's row of the arm: the experiment's own limit goes without saying."""
    if limit == graph.e.lengths.completion:
        return graph.prefix, f"{arm} {graph.prefix.removeprefix('evaluations/').rstrip('/')}".rstrip()
    return f"length_grid/{limit}/", f"{arm}, {limit} tokens,"


def self_test(graph: Graph, answers: BySeed) -> str | None:
    """The judge on pairs whose verdict is known: answers of the data, or the baseline's where the data have none."""
    size, seed = graph.e.judge.self_test, graph.e.seeds[0]
    if not size:
        return None
    inputs = {"data": graph.data, "answers": answers[graph.e.baseline_arm][seed], **_judge_inputs(graph, seed)}
    judge = _judged_by(graph)
    spec = JudgeSelfTestSpec(judge=judge, prompts=size, setup=graph.setup)
    return graph.add(f"{graph.prefix}judge/self-test", spec, inputs, row="judge self-test", cost=f"{size} prompts")


def reward_samples(graph: Graph) -> str | None:
    """Several answers of the start per held-out prompt; see `of_samples` for their scores."""
    if graph.e.evaluation.best_of_n < 2 or not graph.e.reward_models:
        return None
    seed = graph.e.seeds[0]
    return _scored_samples(graph, graph.models[graph.e.initial_policy, seed], seed, "samples/start", "reward samples", kept=0)


def arm_samples(graph: Graph) -> dict[str, dict[int, str]]:
    """The same of the arms that are named, of every seed."""
    if graph.e.evaluation.best_of_n < 2 or not graph.e.reward_models:
        return {}
    return {
        name: {
            seed: _scored_samples(
                graph, graph.models[f"arms/{name}", seed], seed, f"samples/{name}/seed-{seed}", f"{name} samples", kept=seed
            )
            for seed in graph.e.seeds
        }
        for name in graph.e.evaluation.best_of_arms
    }  # fmt: skip


def _scored_samples(graph: Graph, policy: str, seed: int, place: str, row: str, *, kept: int) -> str:
    """`kept` is the seed of the sampling."""
    given, gold = graph.e.evaluation, _reward(_judged_by(graph)) if graph.e.arms else None
    spec = SampleRewardsSpec(
        gold=gold, prompts=given.prompts, completions_per_prompt=given.best_of_n, sampling=given.sampling,
        setup=graph.setup, environment=graph.e.asked_in,
    )  # fmt: skip
    inputs = {"start": policy, "data": graph.asked, **(_judge_inputs(graph, seed) if graph.e.arms else {})}
    column = f"seed {seed}" if place != "samples/start" else SHARED
    return graph.add(place, spec, inputs, seed=kept, row=row, column=column, cost=f"{given.prompts} prompts x {given.best_of_n}")


def frontiers(graph: Graph) -> dict[str, dict[int, str]]:
    """For every trained arm that was sampled in training: their KL to the start, and the judge's score."""
    if not graph.e.evaluation.frontier:
        return {}
    found: dict[str, dict[int, str]] = {}
    spec = FrontierSpec(gold=_reward(_judged_by(graph)), setup=graph.setup)
    for arm in graph.arms.values():
        if not (arm.trained and arm.train.sample_every):
            continue
        for seed in graph.e.seeds if arm.per_seed else graph.e.seeds[:1]:
            models = {"arm": graph.models[f"arms/{arm.name}", seed], "start": graph.models[graph.e.initial_policy, seed]}
            inputs = {**models, "data": graph.data, **_judge_inputs(graph, seed)}
            name, row = f"frontier/{arm.name}/seed-{seed}", f"{arm.name} frontier"
            cost = "score samples of training"
            found.setdefault(arm.name, {})[seed] = graph.add(name, spec, inputs, row=row, column=f"seed {seed}", cost=cost)
    return found


def _judged_by(graph: Graph) -> JudgedBy:
    if not isinstance(graph.e.judge, JurySettings):
        return _one_judge(graph, graph.e.judge)
    members = {name: _one_judge(graph, judge) for name, judge in graph.e.judge.judges.items()}
    return JudgedBy(settings=JuryRule(by=graph.e.judge.by), members=members)


def _one_judge(graph: Graph, judge: ScoringJudge | Comparing) -> JudgedBy:
    if isinstance(judge, ScoringJudge):
        return JudgedBy(settings=ScoredBy(reward=graph.reward_spec(judge.reward), tie=judge.tie))
    return judged_by(judge)


def _reward(by: JudgedBy) -> Mapping[str, Any] | None:
    """The reward that scores answers as the judge does; None for a judge of pairs."""
    return by.settings.reward if isinstance(by.settings, ScoredBy) else None


def _judge_inputs(graph: Graph, seed: int) -> dict[str, str]:
    rewards = [judge.reward for judge in graph.e.judges().values() if isinstance(judge, ScoringJudge)]
    return {role: node for reward in rewards for role, node in graph.reward_inputs(reward, seed).items()}


def _judge_cost(graph: Graph) -> str:
    return " + ".join(_cost(judge, graph.questions.count) for judge in graph.e.judges().values())


def _cost(judge: ScoringJudge | Comparing, pairs: int) -> str:
    if isinstance(judge, ScoringJudge):
        return "score both answers"
    if isinstance(judge, OwnJudge):
        return f"{pairs} pairs"
    if isinstance(judge, Human):
        return f"{pairs} pairs by people"
    orders = "one order" if getattr(judge, "orders", "both") == "one" else "both orders"
    repeats = getattr(judge, "repeats", 1)
    return f"{pairs} pairs in {orders}" + (f" x {repeats}" if repeats > 1 else "")
