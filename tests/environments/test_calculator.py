"""The calculator: values by hand, bounds, and the two forms in which it is called."""

from __future__ import annotations

import pytest

from evenhand.environments.calculator import SCHEMA, Calculator, value_of
from evenhand.errors import UserError
from evenhand.protocols import Action
from evenhand.types import Message, Prompt

PROMPT = Prompt(content=(Message("user", "What is 3 + 4?"),))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3 + 4 * 2", "11"), ("(3 + 4) * 2", "14"), ("-3 - -4", "1"), ("7 / 2", "3.5"), ("7 // 2", "3"), ("7 % 4", "3"),
        ("0.1 + 0.2", "0.3"), ("1 / 3", "0.333333333333"), ("2 ** 64", "18446744073709551616"), ("2 ** -1", "0.5"),
        (" 5 ", "5"), ("1e3", "1000"), ("0 * 5", "0"),
    ],
)  # fmt: skip
def test_values(expression, value):
    assert value_of(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "", "1 +", "1 / 0", "0 ** -1", "x", "abs(3)", "__import__('os').getcwd()", "(lambda: 1)()", "[1]", "'a' * 3", "True",
        "9 ** 9 ** 9", "10 ** 10000", "(10 ** 1000) ** 10", "1e99999999", "1e999 - 1e999", "2 ** 0.5", "1 if 1 else 2", "1 << 9",
        "1" * 201, "(" * 150 + "1" + ")" * 40, "1 == 1", "2j", "1_", "1; 2", "𝟏 + x",
    ],
)  # fmt: skip
def test_what_has_no_value_or_none_within_bounds(expression):
    assert value_of(expression) == "error"  # at once: one that is computed first would never end


def test_every_call_of_a_turn_is_answered_and_a_turn_without_one_ends():
    calculator = Calculator(cost=0.25)
    assert calculator.reset(PROMPT) == PROMPT
    reply = calculator.step(Action("First <calc>1 + 1</calc> then <calc>2 /</calc>."))
    assert (reply.messages, reply.done) == ((Message("tool", "2"), Message("tool", "error")), False)
    assert reply.reward == -0.5
    assert calculator.step(Action("It is 7.")).done
    assert calculator.step(Action("<calc>1 + 1")).done, "a call that was cut is none"


def test_as_a_tool_of_the_template():
    calculator = Calculator(form="tool_call", role="user")
    assert calculator.reset(PROMPT).options == {"tools": [SCHEMA]}
    call = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "6 * 7"}}\n</tool_call>'
    assert calculator.step(Action(call)).messages == (Message("user", "42"),)
    other = '<tool_call>{"name": "search", "arguments": {}}</tool_call>'
    assert calculator.step(Action(other)).done
    assert calculator.step(Action(call.replace('{"expression": "6 * 7"}', "3"))).messages == (Message("user", "error"),)


@pytest.mark.parametrize("wrong", [{"form": "json"}, {"role": "assistant"}])
def test_settings_are_checked(wrong):
    with pytest.raises(UserError):
        Calculator(**wrong)
