"""The pinned date of templates, in every way they may ask for it."""

import datetime

import jinja2
import pytest

from evenhand.data.dates import TODAY, told_today
from evenhand.data.template import Renderer
from evenhand.types import Prompt
from tests.data.templates_in_use import MARKED, PLAIN, A, U, learned, tokenizer
from tests.data.test_thinking import demonstration

ASKED = [
    ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
    ("{% set f = '%d %b %Y' %}{{ strftime_now(f) }}", "26 Jul 2024"),
    ("{{ strftime_now(format='%Y-%m-%d') }}", "2024-07-26"),
    ("{{ strftime_now ( '%Y' ) }}", "2024"),
    ('{%- set today = strftime_now("%B %d, %Y") -%}{{ today }}', "July 26, 2024"),
    ("{% if strftime_now is defined %}{{ strftime_now('%-d/%-m/%y') }}{% else %}never{% endif %}", "26/7/24"),
    (
        "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}",
        "26 Jul 2024",
    ),
    ("{% macro day(f) %}{{ strftime_now(f) }}{% endmacro %}{{ day('%A') }}", "Friday"),
    ("{% set ns = namespace(d=strftime_now('%Y')) %}{% for i in [1] %}{{ ns.d ~ strftime_now('%m') }}{% endfor %}", "202407"),
    ("{{ strftime_now('100%% of %H:%M') | upper }}", "100% OF 00:00"),
    ("{{ strftime_now('%Y-%m-%d').split('-')[0] }}", "2024"),
]


@pytest.mark.parametrize(("asked", "expected"), ASKED)
def test_a_template_is_told_the_pinned_date_however_it_asks(asked, expected):
    renderer = Renderer(tokenizer(asked + PLAIN))
    prompt = Prompt(content=(U("hi"),))
    assert renderer.prompt_text(prompt) == expected + "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(("asked", "expected"), ASKED[:2])
def test_the_answer_is_told_the_same(asked, expected):
    for template in (PLAIN, MARKED):
        ((prompt, answer),) = learned(asked + template, demonstration(U("hi"), A("yes")), "assistant")
        assert prompt.startswith(expected + "<|im_start|>")
        assert answer == "yes<|im_end|>"


def test_named_templates_are_told_it_too():
    tok = tokenizer(PLAIN)
    tok.chat_template = {"default": "{{ strftime_now('%Y') }}" + PLAIN, "tool_use": "{{ strftime_now('%d') }}{{ tools }}" + PLAIN}
    prompt = Prompt(content=(U("hi"),))
    tools = [{"type": "function", "function": {"name": "f"}}]
    renderer = Renderer(tok)
    assert renderer.prompt_text(prompt).startswith("2024<|im_start|>")
    assert renderer.prompt_text(Prompt(content=(U("hi"),), options={"tools": tools})).startswith("26[{")


def test_every_directive_is_that_of_the_pinned_day():
    """Against strftime itself, with a date of which every field has a value of its own."""
    for text in ("%a %A %w %d %b %B %m %y %Y", "%H %I %p %M %S %f", "%j %U %W %c", "%x %X %% %G %u %V", "%-d %-m %-H %-I", "no"):
        template = told_today("{{ strftime_now(" + repr(text) + ") }}")["chat_template"]
        assert jinja2.Template(template).render() == TODAY.strftime(text), text
    assert datetime.datetime(2024, 7, 26) == TODAY


def test_a_line_break_at_the_start_of_a_template_is_kept():
    asked = "\n{{ strftime_now('%Y') }}"
    assert Renderer(tokenizer(asked + PLAIN)).prompt_text(Prompt(content=(U("hi"),))).startswith("\n2024<|im_start|>")


def test_templates_that_do_not_ask_are_left_alone():
    assert told_today(PLAIN) == {}
    assert told_today(None) == {}
