"""For the site: examples in docstrings (`>>> ...`) become fenced code. Markdown would take `>>>` for a quotation."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^>>> .*(?:\n.+)*)", re.MULTILINE)


class FencedDoctests(griffe.Extension):
    """Fences every paragraph that begins with a prompt, in docstrings of every kind."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
