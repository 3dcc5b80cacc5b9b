"""Answers of the same arm in several runs to the same held-out prompts, with the words that differ marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from evenhand.report.answers import Answer, PromptCard, answer
from evenhand.report.side_by_side.series import RunsShown
from evenhand.results.record_judge import Sample

MOST = 30
"""Prompts that are shown."""


def prompts_beside(shown: RunsShown) -> list[PromptCard]:
    """The prompts whose answers every run shows, in the first run's order, never chosen by result; a row per arm."""
    labels = shown.compared.labels
    samples = {run.label: {(s.prompt_id, s.prompt): s for s in run.results.samples} for run in shown.compared.runs}
    common = [key for key in samples[labels[0]] if all(key in samples[label] for label in labels)]
    return [_card(shown, {label: samples[label][key] for label in labels}) for key in common[:MOST]]


def _card(shown: RunsShown, samples: Mapping[str, Sample]) -> PromptCard:
    own = {arm: {label: s for label, s in samples.items() if arm in s.answers} for arm in shown.compared.arms}
    rows = tuple(_row(shown, arm, having) for arm, having in own.items() if having)
    first = next(iter(samples.values()))
    turns = next((found for data in shown.data.values() if (found := data.turns.get(first.prompt_id or ""))), ())
    return PromptCard(first.prompt, rows, turns)


def _row(shown: RunsShown, arm: str, samples: Mapping[str, Sample]) -> tuple[Answer, ...]:
    """Every answer marked against the first run's; of two runs the first one's is marked against the other's."""
    first, *others = (sample.answers[arm] for sample in samples.values())
    against = [others[0] if len(others) == 1 else None, *(first for _ in others)]
    return tuple(_answer(shown, arm, label, other, s) for (label, s), other in zip(samples.items(), against, strict=True))


def _answer(shown: RunsShown, arm: str, label: str, against: str | None, sample: Sample) -> Answer:
    baseline = arm == shown.summaries[label].results.baseline
    found = answer(sample, arm, shown.styles[arm], against, baseline=baseline)
    return replace(found, arm=f"{arm} \N{MIDDLE DOT} {label}")
