"""The block at the top of a card that the Hub reads: only what is known, only what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evenhand.export import origin
from evenhand.export.subject import Subject
from evenhand.report.formatting import interval
from evenhand.report.summary import summarise

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData


def metadata(subject: Subject, license: str | None, *, library: str = "transformers") -> ModelCardData:
    """Base model and data sets that have names on the Hub; a licence only if a person gave one; results that were measured."""
    from huggingface_hub import ModelCardData

    adapter = library == "peft"
    base = None if adapter and not origin.starts_from_base(subject) else origin.base_model(subject.run)
    task = "text-classification" if subject.is_reward_model else "text-generation"
    tags = ["evenhand", *([subject.method] if subject.method else [])]
    found = reward_results(subject) if subject.is_reward_model else arm_results(subject)
    return ModelCardData(
        base_model=base, base_model_relation=("adapter" if adapter else "finetune") if base else None,
        datasets=origin.datasets(subject.run) or None, license=license, library_name=library, pipeline_tag=task,
        tags=[*tags, "reward-model"] if subject.is_reward_model else tags,
        model_name=subject.title if found else None, eval_results=found or None,
    )  # fmt: skip


def arm_results(subject: Subject) -> list[EvalResult]:
    """This seed's win rate, the method's over all seeds with its interval, and this seed's mean score by the judge."""
    results = subject.run.results
    summary = summarise(results)
    arm = next((a for a in summary.arms if a.name == subject.name), None)
    judge = (results.judge.name if results.judge is not None else None) or "the run's judge"
    found = []
    if arm is not None and arm.win_rate is not None:
        against = f"against {summary.reference}, judged by {judge}"
        own = subject.of_seed(subject.result.per_seed)
        if own is not None:
            found.append(_result(subject, "win_rate", f"Win rate of this model (seed {subject.seed}) {against}", own))
        if len(summary.results.seeds) > 1:
            sure = f", 95% interval {interval(arm.ci95)}" if arm.ci95 else ""
            name = f"Mean win rate over {len(summary.results.seeds)} seeds {against}{sure}; {arm.verdict.value}"
            found.append(_result(subject, "win_rate_mean", name, arm.win_rate))
    gold = subject.of_seed(subject.result.gold_per_seed)
    if gold is not None:
        found.append(_result(subject, "judge_score", f"Mean score of this model by {judge}", gold))
    return found


def reward_results(subject: Subject) -> list[EvalResult]:
    """Accuracy on held-out pairs."""
    found = subject.summary
    if found.accuracy is None:
        return []
    seeds = len(found.per_seed)
    over = f" (mean of {seeds} seeds)" if seeds > 1 and subject.seed is not None else ""
    name = f"Accuracy on held-out pairs{over}, 95% interval {interval(found.ci95)}"
    return [_result(subject, "accuracy", name, found.accuracy)]


def _result(subject: Subject, kind: str, name: str, value: float) -> EvalResult:
    from huggingface_hub import EvalResult

    run, pairs = subject.run.results, subject.is_reward_model
    count = subject.summary.n if pairs else run.n_prompts
    held = f"{count or 'the'} held-out {'pairs' if pairs else 'prompts'} of the run {run.name or ''}".strip()
    return EvalResult(
        task_type="text-classification" if pairs else "text-generation", dataset_type="evenhand-run", dataset_name=held,
        metric_type=kind, metric_name=name, metric_value=round(value, 4),
    )  # fmt: skip
