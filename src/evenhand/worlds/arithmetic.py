"""Sums and differences of whole numbers: the smallest task with an exact check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evenhand.errors import UserError
from evenhand.seeding import keyed
from evenhand.types import Group, Message, Prompt, Scores
from evenhand.worlds.expressions import REASONED, numbers_in

HELD_OUT = 8


@dataclass(frozen=True, slots=True)
class ArithmeticGold:
    """1 if the last number of the answer is the result, else 0; `parts` add `format`: whether there is a number at all.

    With `reasoning` the number must stand in the answer tags of `<reasoning>..</reasoning><answer>..</answer>`.
    """

    reasoning: bool = False

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [self._group(group) for group in groups]

    def _group(self, group: Group) -> Scores:
        found = [numbers_in(self._answer(c.text)) for c in group.completions]
        correct = tuple(float(bool(n) and n[-1] == group.prompt.meta["result"]) for n in found)
        return Scores(correct, {"correct": correct, "format": tuple(float(bool(n)) for n in found)})

    def _answer(self, text: str) -> str:
        if not self.reasoning:
            return text
        found = REASONED.match(text)
        return found.group(1) if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """`a + b` or `a - b` (never below 0) for whole numbers of at most `digits` digits."""

    digits: int = 2
    reasoning: bool = False
    """Whether the writer shows the sum in reasoning tags before the result in answer tags."""
    skill: float = 0.7
    """The chance that the writer's answer is right; else one digit of it is drawn anew."""
    calculator: float = 0.0
    """The chance that the writer asks the environment `calculator` first and says what it reads; its answer is then right."""

    def __post_init__(self) -> None:
        if not 1 <= self.digits <= 9:
            raise UserError(f"numbers of {self.digits} digits", where="digits", fix="choose from 1 to 9")

    def request(self, generator: np.random.Generator, split: str) -> Prompt:
        while True:
            a, b = (int(n) for n in generator.integers(0, 10**self.digits, 2))
            sign = "+-"[int(generator.integers(2))]
            if sign == "-" and a < b:
                a, b = b, a
            # a + b and b + a are one question, so that neither tells the other's answer across the split
            if (keyed("arithmetic", sign, max(a, b), min(a, b)) % HELD_OUT == 0) == (split == "heldout"):
                break
        result = a + b if sign == "+" else a - b
        return Prompt(
            content=(Message("user", f"What is {a} {sign} {b}?"),), meta={"a": a, "b": b, "sign": sign, "result": result}
        )

    def answer(self, prompt: Prompt, generator: np.random.Generator) -> str | tuple[Message, ...]:
        meta = prompt.meta
        digits = list(str(meta["result"]))
        if generator.random() >= self.skill:
            digits[int(generator.integers(len(digits)))] = str(int(generator.integers(10)))
        asks = bool(self.calculator) and generator.random() < self.calculator
        result = meta["result"] if asks else int("".join(digits))
        told = f"{meta['a']} {meta['sign']} {meta['b']} = {result}"
        told = f"<reasoning>{told}</reasoning><answer>{result}</answer>" if self.reasoning else told
        if not asks:
            return told
        asked = Message("assistant", f"<calc>{meta['a']} {meta['sign']} {meta['b']}</calc>")
        return asked, Message("tool", str(result)), Message("assistant", told)

    def document(self, generator: np.random.Generator) -> str:
        written = self.answer(self.request(generator, "train"), generator)
        return written if isinstance(written, str) else written[-1].content

    def language(self) -> Iterator[str]:
        yield "What is 0123456789 + 1 - 2? 3 + 4 - 5 = 6"
        if self.reasoning:
            yield "<reasoning>1 + 2 = 3</reasoning><answer>1</answer>"
        if self.calculator:
            yield "<calc>1 + 2</calc> - error"
