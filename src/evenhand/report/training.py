"""What is told of the training of arms: warnings and early ends, weights that were kept, rollouts of older weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenhand.report.figures import PlotFigure
from evenhand.report.formatting import is_number, significant
from evenhand.report.plots.curves import Curves, Metric, curve_figures
from evenhand.report.plots.phases import mean_seconds
from evenhand.report.style import ArmStyle
from evenhand.report.summary import ArmRow, Summary
from evenhand.results.record import Results
from evenhand.results.record_parts import CheckpointChoice, TrainingWarning

Place = tuple[str, ArmStyle | None, TrainingWarning]
"""Where a rule fired: an arm (with its style) or a shared stage (None)."""


def warnings_by_rule(results: Results, styles: Mapping[str, ArmStyle]) -> list[list[Place]]:
    """Everywhere that a rule fired, rule by rule, the arms before the shared stages."""
    places: list[Place] = [(arm, styles.get(arm), w) for arm, found in results.arms.items() for w in found.warnings]
    places += [(node, None, w) for node, found in results.stage_warnings.items() for w in found]
    rules = dict.fromkeys(w.rule for *_, w in places)
    return [[place for place in places if place[2].rule == rule] for rule in rules]


def fired(warning: TrainingWarning) -> str:
    """Where it did: "seed 0 from step 12 (0.55)" for each seed."""
    return ", ".join(f"seed {seed} from step {at.step} ({significant(at.value)})" for seed, at in warning.seeds.items())


def stopped_early(results: Results) -> list[tuple[str, str]]:
    """(arm, sentence) of every seed that a limit of the user's ended."""
    return [
        (arm, f"seed {seed}: stopped at step {end.step} of {end.of} because {end.sentence}")
        for arm, found in results.arms.items()
        for seed, end in found.stopped.items()
    ]


def trained_badly(results: Results, arm: str) -> list[str]:
    """The warnings of one arm's training in the words of their rules, and where a limit ended it early."""
    warned = [
        f"While it trained, {fired(warning)}: {rule.measures} passed {significant(rule.limit)}; {rule.means}"
        for places in warnings_by_rule(results, {})
        for rule in (places[0][2],)
        for name, _, warning in places
        if name == arm
    ]
    return [*warned, *(sentence for name, sentence in stopped_early(results) if name == arm)]


Choices = Mapping[str, Mapping[str, CheckpointChoice]]
"""By arm and seed."""
_KEEPS = "Each arm keeps the weights of its {} point."
_RULES = (
    Metric("reward", "Mean reward on validation prompts", "training reward", _KEEPS.format("highest")),
    Metric("loss", "Loss on validation prompts", "", _KEEPS.format("lowest")),
)


def shared_prompts(selection: Choices) -> int | None:
    """Validation prompts that also judge, the most of any arm and seed; None where nothing was chosen."""
    counts = (found.shared_prompts for seeds in selection.values() for found in seeds.values())
    return max((count for count in counts if count is not None), default=None)


def validation_figures(selection: Choices, styles: Mapping[str, ArmStyle]) -> list[PlotFigure]:
    """The validation curves, a figure per rule, since rewards and losses share no scale."""
    figures: list[PlotFigure] = []
    for rule in _RULES:
        curves: Curves = {
            arm: {
                seed: [{"step": 0, rule.key: found.start}, *({"step": p.step, rule.key: p.validation} for p in found.points)]
                for seed, found in seeds.items()
                if found.rule == rule.key
            }
            for arm, seeds in selection.items()
        }
        figures += curve_figures(curves, styles, (rule,), prefix="validation")
    return figures


Ledgers = Mapping[str, Mapping[str, Mapping[str, Any]]]


def stale_arms(summary: Summary, ledgers: Ledgers) -> list[tuple[ArmRow, float | None, float | None]]:
    """Each with the share of its operations that went into log-probs which tell the distance, and with its `overlap`."""
    seconds = mean_seconds(ledgers)
    late = [arm for arm in summary.arms if arm.result.staleness is not None]
    return [(arm, _reread(ledgers.get(arm.name, {})), overlap(seconds.get(arm.name, {}))) for arm in late]


def overlap(seconds: Mapping[str, float]) -> float | None:
    """The share of an arm's time that sampling beside training would save at most: the shorter of the two over their sum.

    >>> overlap({"generate": 3.0, "score": 0.0, "train": 1.0})
    0.25
    """
    sampling = sum(seconds.get(phase, 0.0) for phase in ("generate", "score"))
    both = sampling + (training := seconds.get("train", 0.0))
    return min(sampling, training) / both if both > 0 else None


def _reread(seeds: Mapping[str, Mapping[str, Any]]) -> float | None:
    spent = [ledger.get("flops_by_phase") or {} for ledger in seeds.values()]
    whole = sum(value for phases in spent for value in phases.values() if is_number(value))
    return sum(phases.get("recompute", 0.0) for phases in spent) / whole if whole else None
