"""What the models wrote: held-out answers side by side, and fixed prompts through training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from evenhand.display import spelled_out
from evenhand.report.style import ArmStyle
from evenhand.report.summary import ArmRow, Summary
from evenhand.results.record_judge import JudgedOrder, Sample

Turns = Mapping[str, tuple[tuple[str, str], ...]]
"""By a prompt's id: (role, text) of its turns."""
MOST_PROMPTS = 8
MOST_STEPS = 25
MOST_ARMS = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One arm's answer. `length` is in tokens where the results give it, else None; `chars` is always there."""

    arm: str
    style: ArmStyle
    text: str
    gold: float | None
    length: int | None
    chars: int
    best: bool
    outcome: float | None = None
    parts: tuple[tuple[str, bool], ...] = ()
    """The text in pieces, each with whether the baseline's answer lacks it; see `marked`."""
    turns: tuple[tuple[str, str], ...] = ()
    """(role, text) of all turns of an answer that has several; `text` is then the last."""
    orders: tuple[tuple[str, str], ...] = ()
    """(what was shown first, the verdict) of each order in which a judge was asked; empty for judges that score."""

    @property
    def word(self) -> str:
        """The verdict against the baseline's answer in one word; "" where there is none."""
        if self.outcome is None:
            return ""
        return "wins" if self.outcome > 0.5 else "loses" if self.outcome < 0.5 else "tie"


@dataclass(frozen=True, slots=True)
class PromptCard:
    """One prompt and its answers; `spread` is the highest minus the lowest gold score."""

    prompt: str
    answers: tuple[Answer, ...]
    spread: float
    turns: tuple[tuple[str, str], ...] = ()
    """(role, text) of a conversation's turns; empty for a plain prompt."""


def answer_cards(samples: Sequence[Sample], summary: Summary, turns: Turns | None = None) -> list[PromptCard]:
    """A card per held-out prompt, answers in the order of the arms; `turns` of the prompts that are conversations."""
    return [_card(sample, summary, (turns or {}).get(sample.prompt_id or "", ())) for sample in samples]


LEAST_SHARED = 0.4
"""Below this share of equal words nearly everything differs, and marks say nothing."""


def marked(text: str, baseline: str) -> tuple[tuple[str, bool], ...]:
    """The text in pieces, each with whether the baseline's answer lacks it, by the longest runs of equal words.

    >>> marked("the cat sat down", "the dog sat down")
    (('the ', False), ('cat ', True), ('sat down', False))
    >>> marked("all other words", "no one said it")
    (('all other words', False),)
    """
    own, other = (re.findall(r"\S+\s*|\s+", given) for given in (text, baseline))
    matcher = SequenceMatcher(None, [w.strip() for w in other], [w.strip() for w in own], autojunk=False)
    if not text or matcher.ratio() < LEAST_SHARED:
        return ((text, False),)
    pieces = (("".join(own[start:end]), kind != "equal") for kind, _, _, start, end in matcher.get_opcodes())
    return tuple((piece, new) for piece, new in pieces if piece)


def _card(sample: Sample, summary: Summary, turns: tuple[tuple[str, str], ...]) -> PromptCard:
    texts = sample.answers
    against = texts.get(summary.baseline or "")
    scores = {arm: score for arm, score in sample.gold.items() if score is not None and arm in texts}
    top = max(scores.values(), default=None)
    unique_best = top is not None and sum(score == top for score in scores.values()) == 1
    answers = tuple(
        Answer(
            arm=arm.name,
            style=arm.style,
            text=texts[arm.name],
            gold=scores.get(arm.name),
            length=sample.lengths.get(arm.name),
            chars=len(texts[arm.name]),
            best=unique_best and scores.get(arm.name) == top,
            parts=((texts[arm.name], False),) if arm.is_baseline or against is None else marked(texts[arm.name], against),
            outcome=None if arm.is_baseline else sample.outcome.get(arm.name),
            turns=sample.turns.get(arm.name, ()),
            orders=_orders(sample.orders.get(arm.name, ())),
        )
        for arm in summary.arms
        if arm.name in texts
    )
    spread = max(scores.values()) - min(scores.values()) if scores else 0.0
    return PromptCard(sample.prompt, answers, spread, turns)


def _orders(rows: Sequence[JudgedOrder]) -> tuple[tuple[str, str], ...]:
    """Each order's verdict on the arm's answer, with the judge's own words where they are short."""
    shown = []
    for row in rows:
        word = {"invalid": "no usable verdict", "identical": "identical answers", "empty": "an empty answer"}.get(row.status)
        if word is None:
            word = "prefers it" if row.outcome > 0.5 else "prefers the baseline's" if row.outcome < 0.5 else "a tie"
            word += f" ({row.label})" if row.label else ""
        shown.append(("shown first" if row.a_first else "shown second", word))
    return tuple(shown)


def training_samples(samples: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], summary: Summary) -> dict[str, Any] | None:
    """Fixed prompts over training as plain data for the page's viewer; None without samples.

    `{"arms": [[name, colour, seed]], "steps": [...], "prompts": [{"prompt": text, "arms": {ARM: [[step, text, reward, len]]}}]}`.
    The first seed of each arm, at most MOST_ARMS arms (the best), MOST_PROMPTS prompts and MOST_STEPS evenly
    spaced steps: the files hold the rest.
    """
    first = {arm: next(iter(seeds.items())) for arm, seeds in samples.items() if seeds}
    recorded = [arm for arm in (summary.ranked if summary.crowded else summary.arms) if first.get(arm.name, ("", ()))[1]]
    shown = recorded[:MOST_ARMS]
    if not shown:
        return None
    prompts = list(dict.fromkeys((row.get("prompt_id"), row["prompt"]) for arm in shown for row in first[arm.name][1]))
    steps = _spaced(sorted({row["step"] for arm in shown for row in first[arm.name][1]}))
    return {
        "arms": [[arm.name, arm.style.ink.css, first[arm.name][0]] for arm in shown],
        "steps": steps,
        "arms_left_out": len(recorded) - len(shown),
        "left_out": max(0, len(prompts) - MOST_PROMPTS),
        "prompts": [_timeline(key, text, shown, first, set(steps)) for key, text in prompts[:MOST_PROMPTS]],
    }


def _timeline(key: Any, text: str, shown: Sequence[ArmRow], first: Mapping[str, Any], steps: set[int]) -> dict[str, Any]:
    arms = {
        arm.name: [
            [row["step"], _transcript(row), row.get("reward"), row.get("length")]
            for row in sorted(first[arm.name][1], key=lambda row: row["step"])
            if (row.get("prompt_id"), row["prompt"]) == (key, text) and row["step"] in steps
        ]
        for arm in shown
    }
    return {"prompt": spelled_out(text), "arms": arms}


def _transcript(row: Mapping[str, Any]) -> str:
    """What was said in a recorded answer: its text, or turn by turn where it has several; control characters spelled out."""
    said = [(m["role"], m["content"]) for turn in row.get("turns", ()) for m in turn["messages"]]
    return spelled_out("\n".join(f"{role}: {text}" for role, text in said) if len(said) > 1 else str(row["completion"]))


def _spaced(steps: list[int]) -> list[int]:
    if len(steps) <= MOST_STEPS:
        return steps
    last = len(steps) - 1
    return [steps[round(i * last / (MOST_STEPS - 1))] for i in range(MOST_STEPS)]
