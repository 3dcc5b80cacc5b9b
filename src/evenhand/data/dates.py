"""The date that chat templates are told, in every way they may ask for it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

TODAY = datetime.datetime(2024, 7, 26)
"""The date for templates that ask for today's (`strftime_now`): with the real one, cells of two days would be told two things."""
_FORMATS = "aAwdbBmyYHIMSfpjUWcxXGuVDFTRCehn"
_PARTS = {c: TODAY.strftime(f"%{c}") for c in _FORMATS} | {f"-{c}": TODAY.strftime(f"%-{c}") for c in "dmyHIMSjUW"}
_MACRO = (
    "{%- macro strftime_now(format) -%}"
    "{%- set parts = " + repr(_PARTS) + " -%}"
    "{%- for text in format.split('%%') -%}"
    "{%- if not loop.first -%}{{- '%' -}}{%- endif -%}"
    "{%- for piece in text.split('%') -%}"
    "{%- if loop.first -%}{{- piece -}}"
    "{%- elif piece[:2] in parts -%}{{- parts[piece[:2]] + piece[2:] -}}"
    "{%- elif piece[:1] in parts -%}{{- parts[piece[:1]] + piece[1:] -}}"
    "{%- else -%}{{- '%' + piece -}}{%- endif -%}"
    "{%- endfor -%}{%- endfor -%}"
    "{%- endmacro %}{{ '' }}"  # the last brace keeps a line break with which the template itself may begin
)
"""Takes the place of the function of that name: a template sees it wherever, and with whatever arguments, it asks."""


def told_today(template: Any, *, tools: bool = False) -> dict[str, Any]:
    """Arguments of `apply_chat_template` by which a template that asks for the date is told `TODAY`; none for other templates.

    `template` is a tokenizer's: a text, or several by name, of which `tools` picks "tool_use" where there is one.

    >>> told_today("{{ bos_token }}")
    {}
    """
    if isinstance(template, Mapping):
        template = template.get("tool_use" if tools and "tool_use" in template else "default")
    if not isinstance(template, str) or not re.search(r"\bstrftime_now\b", template):
        return {}
    return {"chat_template": _MACRO + template}
