"""What the models wrote: held-out answers side by side, and fixed prompts through training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    """One arm's answer. `length` is in tokens where the results give it, else None."""

    arm: str
    style: ArmStyle
    text: str
    gold: float | None
    length: int | None
    best: bool = False
    outcome: float | None = None
    parts: tuple[tuple[str, bool], ...] = ()
    """The text in pieces, each with whether the answer beside it lacks it; see `marked`."""
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
    """One prompt and its answers: a row of all arms, or of several runs a row per arm."""

    prompt: str
    rows: tuple[tuple[Answer, ...], ...]
    turns: tuple[tuple[str, str], ...] = ()
    """(role, text) of a conversation's turns; empty for a plain prompt."""

    @property
    def spread(self) -> float:
        """The largest difference of the scores in a row."""
        scores = [[answer.gold for answer in row if answer.gold is not None] for row in self.rows]
        return max((max(row) - min(row) for row in scores if row), default=0.0)


def answer_cards(samples: Sequence[Sample], summary: Summary, turns: Turns | None = None) -> list[PromptCard]:
    """A card per held-out prompt, answers in the order of the arms; `turns` of the prompts that are conversations."""
    return [_card(sample, summary, (turns or {}).get(sample.prompt_id or "", ())) for sample in samples]


LEAST_SHARED = 0.4
"""Below this share of equal words nearly everything differs, and marks say nothing."""


def marked(text: str, baseline: str) -> tuple[tuple[str, bool], ...]:
    """The text in pieces, each with whether the other answer lacks it, by the longest runs of equal words.

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


def answer(sample: Sample, arm: str, style: ArmStyle, against: str | None, *, baseline: bool) -> Answer:
    """An arm's answer with what differs from another one's words; the `baseline` is judged against none."""
    text = sample.answers[arm]
    return Answer(
        arm=arm, style=style, text=text, gold=sample.gold.get(arm), length=sample.lengths.get(arm),
        parts=((text, False),) if against is None else marked(text, against), turns=sample.turns.get(arm, ()),
        outcome=None if baseline else sample.outcome.get(arm),
    )  # fmt: skip


def _card(sample: Sample, summary: Summary, turns: tuple[tuple[str, str], ...]) -> PromptCard:
    against = sample.answers.get(summary.results.baseline or "")
    arms = [arm for arm in summary.arms if arm.name in sample.answers]
    plain = [answer(sample, a.name, a.style, None if a.is_baseline else against, baseline=a.is_baseline) for a in arms]
    scores = [score for arm, score in sample.gold.items() if score is not None and arm in sample.answers]
    best = max(scores) if scores and scores.count(max(scores)) == 1 else None  # of several that share the top none is
    judged = (replace(a, best=best is not None and a.gold == best, orders=_orders(sample.orders.get(a.arm, ()))) for a in plain)
    return PromptCard(sample.prompt, (tuple(judged),), turns)


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
