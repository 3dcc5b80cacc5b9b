"""Exact arithmetic on text: safe evaluation, the numbers in a text, and a solver for the countdown puzzle."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import combinations

OPERATORS: Mapping[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
NUMBER = re.compile(r"(?<![\w.])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w])|(?<![\w.])[-−]?\.\d+(?![\w])")
REASONED = re.compile(r"^\s*<reasoning>[^<>]*</reasoning>\s*<answer>([^<>]*)</answer>\s*$")
"""The thinking format; its group is the answer."""
LONGEST = 200
"""Characters of an expression that are still read; far above any honest answer, and it bounds the parser's depth."""


def numbers_in(text: str) -> list[Fraction]:
    """The decimal numbers of a text, in order; thousands may be grouped by commas.

    >>> [str(n) for n in numbers_in("between -3 and 1,250.5 (not v2)")]
    ['-3', '2501/2']
    """
    return [Fraction(Decimal(m.replace(",", "").replace("−", "-"))) for m in NUMBER.findall(text)]  # of any number of digits


def evaluate(expression: str) -> tuple[Fraction, list[int]] | None:
    """The exact value of an expression of whole numbers, + - * / and brackets, and the numbers it uses; None if it is not one.

    >>> evaluate("(7 - 3) * 25 / 2"), evaluate("2 ** 9"), evaluate("1 / 0")
    ((Fraction(50, 1), [7, 3, 25, 2]), None, None)
    """
    if len(expression) > LONGEST:
        return None
    used: list[int] = []
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body, used)
    except (SyntaxError, ValueError, ZeroDivisionError):  # a model's text: anything may be in it, and none of it is a value
        return None
    return value, used


def _value(node: ast.expr, used: list[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = _value(node.left, used), _value(node.right, used)
        return OPERATORS[type(node.op)](left, right)
    raise ValueError("not plain arithmetic")


@dataclass(frozen=True, slots=True)
class Part:
    """A value reached on the way, the expression for it, and the steps that led there."""

    value: Fraction
    text: str
    steps: tuple[str, ...] = ()


def solve(numbers: Sequence[int], target: int) -> Part | None:
    """The first expression found that uses every number once and equals the target; None if there is none.

    >>> solve([3, 7, 25], 100).text
    '25 * (7 - 3)'
    """
    return next(_search([Part(Fraction(n), str(n)) for n in numbers], Fraction(target)), None)


def _search(parts: list[Part], target: Fraction) -> Iterator[Part]:
    if len(parts) == 1:
        if parts[0].value == target:
            yield Part(target, parts[0].text[1:-1] if parts[0].steps else parts[0].text, parts[0].steps)
        return
    for i, j in combinations(range(len(parts)), 2):
        rest = [part for k, part in enumerate(parts) if k not in (i, j)]
        for joined in joins(parts[i], parts[j]):
            yield from _search([*rest, joined], target)


def joins(a: Part, b: Part) -> Iterator[Part]:
    """Every way to combine two parts into a whole number that is not negative (the puzzle's usual rule)."""
    if a.value < b.value:
        a, b = b, a
    yield _join(a, "+", b, a.value + b.value)
    yield _join(a, "-", b, a.value - b.value)
    yield _join(a, "*", b, a.value * b.value)
    if b.value and (a.value / b.value).denominator == 1:
        yield _join(a, "/", b, a.value / b.value)


def _join(a: Part, sign: str, b: Part, value: Fraction) -> Part:
    step = f"{a.value} {sign} {b.value} = {value}"
    return Part(value, f"({a.text} {sign} {b.text})", (*a.steps, *b.steps, step))
