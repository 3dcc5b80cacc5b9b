"""The countdown puzzle: reach a target from given numbers, each used once. Checking is exact; finding takes search."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from evenhand.errors import UserError
from evenhand.seeding import keyed
from evenhand.types import Group, Message, Prompt, Scores
from evenhand.worlds.expressions import REASONED, Part, evaluate, joins, solve

HELD_OUT = 8
PLAIN = re.compile(r"^\s*<answer>([^<>]*)</answer>\s*$")


@dataclass(frozen=True, slots=True)
class CountdownGold:
    """0.9 for a correct expression, 0.1 for the asked form; `parts` are `correct` and `format`, each 0 or 1.

    Correct: inside the answer tags stands an expression of + - * / that uses each given number exactly once and equals the
    target, in exact fractions. An answer outside the form cannot be correct. Source: the reward of TinyZero's countdown task.
    """

    graded: ClassVar[bool] = True
    """Also between wrong and right."""

    reasoning: bool = False
    """Whether the form is `<reasoning>..</reasoning><answer>..</answer>`, or the answer tags alone."""

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [self._group(group) for group in groups]

    def _group(self, group: Group) -> Scores:
        form = REASONED if self.reasoning else PLAIN
        found = [form.match(c.text) for c in group.completions]
        meta = group.prompt.meta
        correct = tuple(float(m is not None and reaches(m.group(1), meta["numbers"], meta["target"])) for m in found)
        formed = tuple(float(m is not None) for m in found)
        values = tuple(0.9 * c + 0.1 * f for c, f in zip(correct, formed, strict=True))
        return Scores(values, {"correct": correct, "format": formed})


def reaches(expression: str, numbers: Sequence[int], target: int) -> bool:
    """Whether the expression uses each number exactly once and equals the target.

    >>> reaches("(7 - 3) * 25", [3, 7, 25], 100), reaches("50 + 50", [3, 7, 25], 100), reaches("25 * 7", [3, 7, 25], 175)
    (True, False, False)
    """
    result = evaluate(expression)
    return result is not None and result[0] == target and sorted(result[1]) == sorted(numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Countdown:
    """Puzzles of `numbers` numbers from 1 to `largest` with a solvable target of at most `top`. More numbers are harder."""

    numbers: int = 3
    largest: int = 12
    top: int = 60
    reasoning: bool = False
    skill: float = 0.6
    """The chance that the writer's answer is right; else it reaches some other number."""
    fold: int = 0
    """Which eighth of all puzzles is held out. Settings chosen on one fold can be reported on another, which shares none."""

    def __post_init__(self) -> None:
        if not 0 <= self.fold < HELD_OUT:
            raise UserError(f"fold {self.fold} of {HELD_OUT}", where="fold", fix=f"choose from 0 to {HELD_OUT - 1}")
        if not 2 <= self.numbers <= 6:
            raise UserError(
                f"a countdown puzzle of {self.numbers} numbers", where="numbers", fix="choose from 2 (easy) to 6 (hard)"
            )
        for name in ("largest", "top"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}` is {getattr(self, name)}", where=name, fix="use 1 or more; the defaults are 12 and 60")

    def request(self, generator: np.random.Generator, split: str) -> Prompt:
        while True:
            numbers = [int(n) for n in generator.integers(1, self.largest + 1, self.numbers)]
            target = int(_random_result(numbers, generator).value)
            held_out = keyed("countdown", *sorted(numbers), target) % HELD_OUT == self.fold
            if 1 <= target <= self.top and held_out == (split == "heldout"):
                break
        listed = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
        text = f"Use each of the numbers {listed} once to make {target}."
        return Prompt(content=(Message("user", text),), meta={"numbers": numbers, "target": target})

    def answer(self, prompt: Prompt, generator: np.random.Generator) -> str:
        numbers = prompt.meta["numbers"]
        if generator.random() < self.skill:
            found = solve(numbers, prompt.meta["target"])
            assert found is not None, "every request is built from a solution"
        else:
            found = _random_result(numbers, generator)
        reasoning = f"<reasoning>{', '.join(found.steps)}</reasoning>" if self.reasoning else ""
        return f"{reasoning}<answer>{found.text}</answer>"

    def document(self, generator: np.random.Generator) -> str:
        prompt = self.request(generator, "train")
        return f"{prompt.text} {self.answer(prompt, generator)}"

    def language(self) -> Iterator[str]:
        yield "Use each of the numbers 0123456789, 1 and 2 once to make 3."
        yield "<reasoning>(1 + 2) - 3 * 4 / 5 = 6, 7 + (8 * 9) = 0</reasoning><answer>1</answer>. <answer></answer>"


def _random_result(numbers: Sequence[int], generator: np.random.Generator) -> Part:
    """The numbers combined in a random order by random operations; every intermediate value is whole and not negative."""
    parts = [Part(Fraction(n), str(n)) for n in numbers]
    while len(parts) > 1:
        i, j = (int(k) for k in generator.choice(len(parts), 2, replace=False))
        ways = list(joins(parts[i], parts[j]))
        joined = ways[int(generator.integers(len(ways)))]
        parts = [part for k, part in enumerate(parts) if k not in (i, j)] + [joined]
    return Part(parts[0].value, parts[0].text[1:-1], parts[0].steps)
