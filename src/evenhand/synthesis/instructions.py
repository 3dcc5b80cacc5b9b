"""New instructions from a few: a model continues lists of tasks; what is too like an earlier one, or not a task, is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from evenhand.data.minhash import words
from evenhand.rewards.verifiable import rouge_l_f1
from evenhand.seeding import rng
from evenhand.synthesis.generation import Ask
from evenhand.types import Completion, Group, Message, Prompt

SHOWN, OF_INVENTED = 8, 2
"""Tasks shown in a question, and how many of them at most are invented ones."""
NEAR = 0.7
"""ROUGE-L with an earlier instruction from which on a new one is not new."""
SHORTEST, LONGEST = 3, 150
"""Words of an instruction."""
UNANSWERABLE = frozenset(
    {"image", "images", "picture", "graph", "graphs", "file", "files", "map", "video", "audio", "draw", "plot", "flowchart"}
)
_ITEM = re.compile(r"^\s*(?:task\s*)?(\d+)\s*[.:)]\s*", re.IGNORECASE | re.MULTILINE)
_QUESTION = "Come up with new tasks, each different from those before.\n\n{listed}\nTask {next}:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invented:
    """`groups`: each new instruction with its answer. `left_out`: (instruction, reason)."""

    groups: tuple[Group, ...]
    left_out: tuple[tuple[str, str], ...]


def invent(seeds: Sequence[str], ask: Ask, *, count: int, seed: int = 0, questions: int = 8, rounds: int = 20) -> Invented:
    """At least `count` new instructions with answers, or as many as `rounds` of `questions` questions each bring.

    Each question shows eight tasks, up to two of them invented; new ones must be of 3 to 150 words, must not ask for what text
    cannot hold, and must have a ROUGE-L below 0.7 with every instruction so far.
    Source: Wang et al. 2023, Self-Instruct, section 2.2.
    """
    known = [words(s) for s in seeds]
    new: list[str] = []
    left_out: list[tuple[str, str]] = []
    for turn in range(rounds):
        if len(new) >= count:
            break
        asked = [_question(seeds, new, rng(seed, "self-instruct", turn, i)) for i in range(questions)]
        for found in (task for answer in ask(asked) for task in listed(answer)):
            reason = fault(found, known)
            if reason:
                left_out.append((found, reason))
                continue
            known.append(words(found))
            new.append(found)
    answers = ask(new) if new else []
    made = [(q, a) for q, a in zip(new, answers, strict=True) if a.strip()]
    left_out += [(q, "no answer") for q, a in zip(new, answers, strict=True) if not a.strip()]
    groups = tuple(
        Group(prompt=Prompt(content=(Message("user", q),)), completions=(Completion(content=(Message("assistant", a),)),))
        for q, a in made
    )
    return Invented(groups=groups, left_out=tuple(left_out))


def listed(answer: str) -> list[str]:
    """The tasks of an answer that continues a numbered list; the last is left out when the answer stops in mid-sentence.

    >>> listed("Name three rivers.\\nTask 10: Write a poem about rain.\\n11. Add two and")
    ['Name three rivers.', 'Write a poem about rain.']
    """
    pieces = [p.strip() for p in _ITEM.split(answer)[::2]]
    if pieces and pieces[-1] and pieces[-1][-1] not in ".?!:":
        pieces = pieces[:-1]
    return [p for p in pieces if p]


def fault(instruction: str, known: Sequence[Sequence[str]]) -> str:
    """Why an instruction is not taken; "" when it is."""
    said = words(instruction)
    if not SHORTEST <= len(said) <= LONGEST:
        return "too short" if len(said) < SHORTEST else "too long"
    if asked := next((w for w in said if w in UNANSWERABLE), ""):
        return f"asks for what text cannot hold ({asked})"
    if any(rouge_l_f1(said, k) >= NEAR for k in known):
        return "like an earlier one"
    return ""


def _question(seeds: Sequence[str], new: Sequence[str], generator) -> str:
    own = list(generator.permutation(len(new))[:OF_INVENTED])
    given = list(generator.permutation(len(seeds))[: SHOWN - len(own)])
    shown = [seeds[i] for i in given] + [new[i] for i in own]
    shown = [shown[i] for i in generator.permutation(len(shown))]
    lines = "\n".join(f"Task {n}: {' '.join(task.split())}" for n, task in enumerate(shown, start=1))
    return _QUESTION.format(listed=lines, next=len(shown) + 1)
