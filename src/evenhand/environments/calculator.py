"""A calculator as a tool: the model writes an expression, and reads its value."""

from __future__ import annotations

import ast
import json
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, get_args

from evenhand.environments.tool_calls import tool_calls
from evenhand.errors import UserError, did_you_mean
from evenhand.protocols import Action, Reply
from evenhand.types import Message, Prompt

Form = Literal["tags", "tool_call"]
"""How it is called: `<calc>1 + 2</calc>`, or as a tool that the chat template knows, in the form of `tool_calls`."""
LONGEST = 200
"""Characters of an expression that are read; it bounds the parser's depth too."""
BITS = 4096
"""Of the numerator and the denominator of every value on the way."""
DIGITS = 12
"""Significant digits of a result that is no whole number."""
TAGGED = re.compile(r"<calc>(.*?)</calc>", re.DOTALL)
NAME = "calculator"
SCHEMA: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "The exact value of an arithmetic expression of numbers, + - * / // % ** and brackets.",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    },
}
BINARY: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Calculator:
    """Answers every call of a turn with its value, in turns of `role`; a turn without a call ends the answer.

    With `form: tool_call` the prompt's chat template is told of the tool. `cost` is taken off the reward for each call.
    """

    form: Form = "tags"
    role: str = "tool"
    cost: float = 0.0

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise UserError(f"unknown value '{self.form}'", where="environment.form", fix=did_you_mean(self.form, get_args(Form)))
        if self.role not in ("tool", "user"):
            raise UserError(f"unknown value '{self.role}'", where="environment.role", fix="use tool or user")

    def reset(self, prompt: Prompt) -> Prompt:
        if self.form == "tags":
            return prompt
        tools = [*prompt.options.get("tools", ()), SCHEMA]
        return replace(prompt, options={**prompt.options, "tools": tools})

    def step(self, action: Action) -> Reply:
        calls = TAGGED.findall(action.text) if self.form == "tags" else _expressions(action.text)
        messages = tuple(Message(self.role, value_of(call)) for call in calls)
        return Reply(messages, reward=0.0 - self.cost * len(calls), done=not calls)


def _expressions(text: str) -> list[str]:
    """What the calculator is asked by the tool calls of a text; what is no expression is one that has no value."""
    asked = [call["function"] for call in tool_calls(text) if call["function"]["name"] == NAME]
    given = [json.loads(call["arguments"]) for call in asked]
    return [str(arguments.get("expression", "")) if isinstance(arguments, dict) else "" for arguments in given]


def value_of(expression: str) -> str:
    """The value of an expression in digits, or the word error.

    Numbers, + - * / // % ** and brackets, exact; powers of whole exponents. The text is parsed and walked, never run.

    >>> value_of("(3 + 4) * 12"), value_of("1 / 8"), value_of("2 ** 10 - 24"), value_of("-7 // 2")
    ('84', '0.125', '1000', '-4')
    >>> value_of("1 / 0"), value_of("9 ** 9 ** 9"), value_of("__import__('os')"), value_of("1e99999999")
    ('error', 'error', 'error', 'error')
    """
    if len(expression) > LONGEST:
        return "error"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, about numbers that touch words
            tree = ast.parse(expression.strip(), mode="eval")
        value = _value(tree.body, expression.strip())
        return str(value.numerator) if value.denominator == 1 else f"{float(value):.{DIGITS}g}"
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):  # a model's text: anything may be in it
        return "error"


def _value(node: ast.expr, text: str) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        if not node.value or math.isinf(node.value):  # an exponent without bounds would be written out
            return Fraction(node.value)
        return _bounded(Fraction(ast.get_source_segment(text, node) or ""))  # as written: 0.1 is a tenth
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _value(node.operand, text)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, text), _value(node.right, text)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if (function := BINARY.get(type(node.op))) is not None:
            return _bounded(Fraction(function(left, right)))
    raise ValueError("not plain arithmetic")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """A power whose size is known before it is computed."""
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator != 1 or abs(exponent) * size > BITS:
        raise ValueError("too large, or no whole exponent")
    return Fraction(base**exponent.numerator)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
        raise ValueError("too large")
    return value
