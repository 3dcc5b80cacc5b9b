"""Markdown in which nothing but the template is markup: whatever comes from data, models or a person's file is text."""

from __future__ import annotations

import re
from typing import Any

import jinja2

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#$&])")


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def escaped(value: Any) -> str:
    r"""A value as one line of plain text in Markdown; `Markdown` stays as it is.

    >>> escaped("a_b <b>|\n# x"), escaped(Markdown("**a**"))
    ('a\\_b \\<b\\>\\| \\# x', '**a**')
    """
    if isinstance(value, Markdown):
        return value
    text = _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))
    return "\\" + text if text.startswith(("-", "+", "=")) and not text[1:2].isdigit() else text


def code(value: Any, *, cell: bool = False) -> Markdown:
    r"""A value in a code span, which may hold backticks itself; in the `cell` of a table a bar must be escaped.

    >>> code("a"), code("`b`"), code("<|end|>"), code("<|end|>", cell=True)
    ('`a`', '`` `b` ``', '`<|end|>`', '`<\\|end\\|>`')
    """
    text = " ".join(str(value).split())
    text = text.replace("|", "\\|") if cell else text
    ticks = "`" * (_longest(text) + 1)
    blank = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return Markdown(f"{ticks}{blank}{text}{blank}{ticks}")


def fenced(text: str, language: str = "") -> Markdown:
    """A block of verbatim text, behind a fence that is longer than any in it."""
    ticks = "`" * max(3, _longest(text) + 1)
    return Markdown(f"{ticks}{language}\n{text.rstrip()}\n{ticks}")


def _longest(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def environment(loader: jinja2.BaseLoader) -> jinja2.Environment:
    """Templates whose every expression is escaped, unless it is `Markdown`."""
    return jinja2.Environment(
        loader=loader, finalize=escaped, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,  # finalize does it, for Markdown
    )  # fmt: skip
