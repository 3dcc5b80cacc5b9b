"""Which sections of the page begin folded, and what each then says of itself beside its title."""

from __future__ import annotations

from collections.abc import Mapping

from evenhand.report.budget import BudgetTable
from evenhand.report.formatting import percent
from evenhand.report.scorers import faults
from evenhand.results.record import Results
from evenhand.results.record_parts import RewardModelSummary, TuningSummary

NAMED = 4
"""More things than this are counted, and not named."""


def folded(results: Results, table: BudgetTable | None) -> dict[str, str | None]:
    """By section what it says while it is folded; None: it begins open. Whatever has a warning in it begins open."""
    models = results.reward_models.values()
    clean = not any(faults(model) or any(probe.fooled for probe in model.probes.values()) for model in models)
    return {
        "budget": _budget(table),
        "reward_models": _accuracies(results.reward_models) if clean else None,
        "tuning": _tuned(results.tuning),
        "failed": None if results.failed or results.excluded else "none",
    }


def _budget(table: BudgetTable | None) -> str:
    """In what the trained arms differ, the most costly over the cheapest."""
    if table is None:
        return "time by phase"
    apart = [f"{name} {'by some only' if ratio == 'not all' else ratio}" for name, ratio in table.spread if ratio != "equal"]
    if not apart:
        return "the same for all trained arms" if table.spread else "what each arm cost"
    return "most over least: " + ", ".join(apart[:NAMED])


def _accuracies(models: Mapping[str, RewardModelSummary]) -> str:
    if len(models) > NAMED:
        return f"{len(models)} of them, without a warning"
    known = [f"{name} {percent(m.accuracy)}" for name, m in models.items() if m.accuracy is not None]
    return "ranks held-out pairs as labelled: " + ", ".join(known) if known else "without a warning"


def _tuned(tuning: TuningSummary | None) -> str | None:
    if tuning is None or tuning.shared_prompts or tuning.not_tuned:
        return None
    return f"by {tuning.measure} on {tuning.prompts} validation prompts"
