"""From finished artifacts to the results record: the comparison, with its intervals. Nothing here depends on the clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evenhand.plan.plan import Plan
from evenhand.results.checkpoints import over_training, selections
from evenhand.results.comparison import Fits, arm_results, beside_verdicts, differences, judged_together, power
from evenhand.results.evaluations import evaluation_results, pass_rates, read_evaluations
from evenhand.results.fairness import deviations, held_equal, made_apart, spent_apart
from evenhand.results.files import parsed
from evenhand.results.judge_summary import judge_summary
from evenhand.results.length_grid import grid
from evenhand.results.looks import looks
from evenhand.results.paths import without_folders
from evenhand.results.record import ArmResult, Excluded, FailedStage, PluginUsed, Results, Waived
from evenhand.results.record_judge import JudgeSummary, Sample, SelfTest
from evenhand.results.record_parts import FrontierPoint
from evenhand.results.reward_model_summary import (
    best_of_n,
    best_of_n_of_arms,
    finished_seeds,
    length_leaning,
    reward_model_summary,
)
from evenhand.results.reward_scores import rewarded, trained_on_judge, unscored
from evenhand.results.rollouts import sampler_gap, staleness
from evenhand.results.run_artifacts import RunArtifacts
from evenhand.results.training_warnings import early_ends, metrics, of_arm, of_stages
from evenhand.results.tuning import tuned_alike, tuning, untuned
from evenhand.results.versions import versions_apart
from evenhand.stages.judge import JudgeSpec
from evenhand.store.store import Store
from evenhand.types import Completion

SHOWN_PROMPTS = 60


def assemble(
    plan: Plan, store: Store, out: Path, *, errors: Mapping[str, str] | None = None, waived: tuple[Waived, ...] = ()
) -> Results:
    """The results of whatever has finished: an arm counts with its seeds, a pair with those of both.

    `errors` are those of the stages that failed or could not start, by name; folders of this machine are taken out of them. A
    finished artifact that is damaged counts as a stage that failed.
    """
    experiment, done = plan.experiment, RunArtifacts.read(plan, store)
    seeds, fits = done.all_seeds, Fits()
    prompts = len(done.verdicts[done.arms[0]][done.seeds(done.arms[0])[0]]["prompt_id"]) if done.arms else 0
    looked = looks(plan, out, prompts) if plan.arms else None
    failed = {**done.damaged(), **(errors or {})}
    more = read_evaluations(done)
    extra = [difference for one in more for difference in one.differences.values()]
    alpha = {"alpha": looked.alpha} if looked is not None else {}
    found, others = judged_together(differences(done, fits), done.baseline, extra, **alpha)
    arms = beside_verdicts(arm_results(done, fits), found, done.baseline) if seeds else {}
    arms, chosen = {arm: replace(row, **beside(done, arm)) for arm, row in arms.items()}, selections(done)
    sampled = plan.reward_samples is not None and done.has(plan.reward_samples)
    scores = done.scored_samples(plan.reward_samples, experiment.seeds[0]) if sampled and plan.reward_samples else None
    private = {str(store.root.resolve()): "store", str(out.resolve()): ""}
    return Results(
        name=experiment.name,
        description=experiment.description,
        baseline=done.baseline or None,
        judge=judge(done) if plan.arms else None,
        n_prompts=prompts,
        seeds=seeds,
        arms=arms,
        contrasts=found,
        looks=looked,
        power=power(found),
        excluded=excluded(done),
        unscored=unscored(done),
        reward_models={n: reward_model_summary(done, n) for n in plan.reward_models if finished_seeds(done, n)},
        held_equal=(*held_equal(experiment, prompts or None), *tuned_alike(done)) if plan.arms else (),
        deviations=tuple(without_folders(d) for d in not_equal(done, arms)) if plan.arms else None,
        samples=samples(done),
        frontier=frontier(done),
        best_of_n=best_of_n(scores) if scores is not None else {},
        best_of_n_by_arm=best_of_n_of_arms(done),
        length_bias=length_leaning(scores) if scores is not None else {},
        length_grid=grid(done),
        selection=chosen,
        evaluations=evaluation_results(done, more, others),
        over_training=over_training(done, arms, chosen),
        tuning=tuning(done),
        stage_warnings=of_stages(done),
        curves=curves(done),
        failed=tuple(FailedStage(node=n, error=without_folders(e, private)) for n, e in failed.items()),
        waived=waived,
        plugins=tuple(PluginUsed(name=without_folders(p.name), source=p.source.name, digest=p.digest) for p in plan.plugins),
    )


def beside(done: RunArtifacts, arm: str) -> dict[str, Any]:
    """The fields of an `ArmResult` that no verdict rests on: how it was trained, and pass@k."""
    steps, asked = metrics(arm, done), done.plan.experiment.arm(arm).staleness if done.plan.trained(arm) else None
    stale = None if asked is None else staleness(steps, steps=asked.steps, proximal=asked.proximal)
    return {**of_arm(arm, done), "staleness": stale, "sampler_gap": sampler_gap(steps), "pass_at": pass_rates(done, arm)}


def not_equal(done: RunArtifacts, arms: Mapping[str, ArmResult]) -> list[str]:
    """What differs between arms besides the method: by their settings, by what they spent, by how and where they were made."""
    trained = {a: asdict(r.ledger) for a, r in arms.items() if r.ledger is not None and r.seeds and done.plan.trained(a)}
    own = deviations(done.plan.experiment)
    return [*own, *spent_apart(trained), *made_apart(done.origins()), *early_ends(arms), *untuned(done), *versions_apart(done)]


def curves(done: RunArtifacts) -> dict[str, dict[str, str]]:
    """Where the metrics of every trained arm lie in the run directory."""
    trained = [a for a in done.arms if done.plan.trained(a)]
    return {a: {str(s): f"arms/{a}/seed-{s}/metrics.jsonl" for s in done.seeds(a)} for a in trained}


def in_turns(completion: Completion) -> list[list[str]]:
    """(role, text) of all that was said in an answer of several turns; nothing of one turn alone."""
    said = [[m.role, m.text] for turn in completion.turns for m in turn.messages]
    return said if len(said) > 1 else []


def excluded(done: RunArtifacts) -> tuple[Excluded, ...]:
    """The cells without a verdict: they count nowhere, and the reader must know that they do not."""
    lost = {a: tuple(s for s in done.plan.experiment.seeds if s not in done.verdicts[a]) for a in done.plan.arms}
    return tuple(Excluded(arm=a, seeds=seeds, kept=done.seeds(a)) for a, seeds in lost.items() if seeds)


def frontier(done: RunArtifacts) -> dict[str, tuple[FrontierPoint, ...]]:
    """Reward, gold score and KL over training: the points of every finished seed of an arm."""
    finished = {arm: {s: n for s, n in seeds.items() if done.has(n)} for arm, seeds in done.plan.frontiers.items()}
    points = {
        arm: [p for seed, node in nodes.items() for p in rewarded(done, arm, seed, done.load(node, "frontier.json"))]
        for arm, nodes in finished.items() if nodes
    }  # fmt: skip
    return {arm: parsed(tuple[FrontierPoint, ...], rows) for arm, rows in points.items()}


def judge(done: RunArtifacts) -> JudgeSummary:
    """Who judged; see `judge_summary`."""
    node = done.plan[next(iter(next(iter(done.plan.verdicts.values())).values()))]
    test = done.plan.judge_test
    tested = parsed(SelfTest, done.load(test, "self_test.json")) if test is not None and done.has(test) else None
    verdicts = {a: list(done.verdicts[a].values()) for a in done.arms}
    assert isinstance(node.spec, JudgeSpec)
    found = judge_summary(done.plan.experiment.judge, node.spec.judge, verdicts, done.baseline)
    return replace(found, self_test=tested, trained_on=trained_on_judge(done.plan.experiment))


def samples(done: RunArtifacts) -> tuple[Sample, ...]:
    """Answers side by side, with the judge's score: the first prompts of one seed, never chosen by result.

    The seed is the first one that most arms have; an arm without it is left out here.
    """
    if not done.arms:
        return ()
    seed = max(done.all_seeds, key=lambda s: sum(s in done.verdicts[a] for a in done.arms))
    arms = [a for a in done.arms if seed in done.verdicts[a]]
    answers = zip(*(done.generations(a, seed, SHOWN_PROMPTS) for a in arms), strict=True)
    judged = {a: done.verdicts[a][seed] for a in arms}
    measured = {a: done.measured[a][seed]["length"] for a in arms}
    return parsed(tuple[Sample, ...], [
        {
            "prompt_id": groups[0].prompt.id, "prompt": groups[0].prompt.text, "seed": seed,
            "answers": {a: g.completions[0].text for a, g in zip(arms, groups, strict=True)},
            "gold": {a: judged[a]["gold"][i] for a in arms}, "outcome": {a: judged[a]["outcome"][i] for a in arms},
            "orders": {a: judged[a]["orders"][i] for a in arms if judged[a]["orders"][i]},
            "lengths": {a: measured[a][i] for a in arms},
            "turns": {a: said for a, g in zip(arms, groups, strict=True) if (said := in_turns(g.completions[0]))},
        }
        for i, groups in enumerate(answers)
    ])  # fmt: skip
