"""Checks of turns: who speaks last, whose turn it is, and what a thinking model is shown."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from evenhand.doctor.context import CheckContext
from evenhand.doctor.registry import Finding, check, share, shortened, too_many, warn
from evenhand.types import Content, Message

THINKING = re.compile(r"<(think|thinking|reasoning)>")


@check(
    "D20",
    "turns alternate and end where an answer belongs",
    why="a prompt that ends with the assistant asks the model to answer itself; an answer by the user trains it to be the user",
    fix="end prompts with the user and answers with the assistant; a wrong role name is a common cause",
)
def turns(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        wrong = [g for g in groups if any(m.role != "assistant" for c in g.completions for m in _turns(c.content)[-1:])]
        for what, rows in (
            ("prompts end with the assistant's turn", [g for g in groups if _unfinished(g.prompt.content)]),
            ("answers are not the assistant's", wrong),
            ("prompts have one speaker twice in a row", [g for g in groups if _twice(g.prompt.content)]),
        ):
            shown = (shortened(g.prompt.text) for g in rows[:3])
            yield from too_many(len(rows), len(groups), f"{what} in {split}", *shown, warn_above=0.01, fail_above=0.2)


@check(
    "D21",
    "all answers think, or none",
    why="with thinking in some answers only, its presence is learned as a quality of its own, or at random",
    fix="give every answer the form, or take it from all",
)
def thinking(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        answers = [c.text for g in groups for c in g.completions]
        with_it = sum(bool(THINKING.search(t)) for t in answers)
        open_ended = [t for t in answers if (m := THINKING.search(t)) and f"</{m.group(1)}>" not in t]
        if 0.02 * len(answers) < with_it < 0.98 * len(answers):
            yield warn(f"{share(with_it, len(answers))} answers of {split} have a thinking block, the others none")
        words, shown = f"answers of {split} open a thinking block and never close it", map(shortened, open_ended[:3])
        yield from too_many(len(open_ended), len(answers), words, *shown, warn_above=0.01, fail_above=0.5)


def _turns(content: Content) -> tuple[Message, ...]:
    return () if isinstance(content, str) else content


def _unfinished(content: Content) -> bool:
    """Whether a prompt ends with the assistant without leaving its turn open for the answer (a prefill)."""
    return any(last.role == "assistant" and not last.prefill for last in _turns(content)[-1:])


def _twice(content: Content) -> bool:
    roles = [m.role for m in _turns(content) if m.role in ("user", "assistant")]
    return any(a == b for a, b in itertools.pairwise(roles))
