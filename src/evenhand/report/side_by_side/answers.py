"""Answers of the same arm in several runs to the same held-out prompts, with the words that differ marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evenhand.report.answers import Answer, marked
from evenhand.report.side_by_side.series import RunsShown
from evenhand.results.record_judge import Sample

MOST = 30
"""Prompts that are shown."""


@dataclass(frozen=True, slots=True)
class PromptBeside:
    """One prompt; a row per arm with its answer in every run that has one. `spread` is the largest difference of the scores.

    `turns` are (role, text) of a prompt that is a conversation.
    """

    prompt: str
    rows: tuple[tuple[Answer, ...], ...]
    spread: float
    turns: tuple[tuple[str, str], ...] = ()


def prompts_beside(shown: RunsShown) -> list[PromptBeside]:
    """The prompts whose answers every run shows, in the first run's order, never chosen by result."""
    labels = shown.compared.labels
    samples = {run.label: {(s.prompt_id, s.prompt): s for s in run.results.samples} for run in shown.compared.runs}
    common = [key for key in samples[labels[0]] if all(key in samples[label] for label in labels)]
    return [_card(shown, {label: samples[label][key] for label in labels}) for key in common[:MOST]]


def _card(shown: RunsShown, samples: Mapping[str, Sample]) -> PromptBeside:
    arms = [arm for arm in shown.compared.arms if any(arm in sample.answers for sample in samples.values())]
    rows = tuple(_row(shown, arm, {label: s for label, s in samples.items() if arm in s.answers}) for arm in arms)
    first = next(iter(samples.values()))
    turns = next((found for data in shown.data.values() if (found := data.turns.get(first.prompt_id or ""))), ())
    return PromptBeside(first.prompt, rows, max((_spread(row) for row in rows), default=0.0), turns)


def _row(shown: RunsShown, arm: str, samples: Mapping[str, Sample]) -> tuple[Answer, ...]:
    texts = {label: sample.answers[arm] for label, sample in samples.items()}
    return tuple(_answer(shown, arm, label, sample, texts) for label, sample in samples.items())


def _answer(shown: RunsShown, arm: str, label: str, sample: Sample, texts: Mapping[str, str]) -> Answer:
    """One answer, marked against the first run's; of two runs the first one's is marked against the other's."""
    text, first = texts[label], next(iter(texts))
    other = texts[first] if label != first else list(texts.values())[1] if len(texts) == 2 else None
    return Answer(
        arm=f"{arm} \N{MIDDLE DOT} {label}",
        style=shown.styles[arm],
        text=text,
        gold=sample.gold.get(arm),
        length=sample.lengths.get(arm),
        chars=len(text),
        best=False,
        parts=((text, False),) if other is None or other == text else marked(text, other),
        outcome=None if arm == shown.summaries[label].baseline else sample.outcome.get(arm),
        turns=sample.turns.get(arm, ()),
    )


def _spread(row: tuple[Answer, ...]) -> float:
    scores = [answer.gold for answer in row if answer.gold is not None]
    return max(scores) - min(scores) if scores else 0.0
