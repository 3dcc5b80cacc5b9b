"""docs/reference.md and docs/experiment.schema.json: `python -m evenhand.manual` writes both from the code."""

from __future__ import annotations

import json
from collections.abc import Iterator

from evenhand.spec.json_schema import json_schema
from evenhand.spec.keys import ELSEWHERE, Key, Section, sections

HEAD = """# Every key of an experiment file

Written by `python -m evenhand.manual` from the code that checks a file; a test keeps it current.
`evenhand keys KEY` says the same on a terminal, and answers to the words of other tools too (`evenhand keys num_generations`).
[experiment.schema.json](experiment.schema.json) is for editors: a first line
`# yaml-language-server: $schema=FOLDER/experiment.schema.json` completes and checks keys while you write
(`evenhand keys --json-schema > experiment.schema.json` makes one that fits the installed version).

NAME and SPLIT stand for words of your own, and for `demonstrations`, `preferences`, `prompts`, `heldout_preferences` and
`heldout_prompts`. A setting can be changed from the command line: `evenhand run FILE train.steps=100 arms.dpo.beta=0.05`.
An arm takes the keys of `arms.NAME` and those of its method side by side. Mappings that occur in several places are listed once:
{elsewhere}.
"""


def page() -> str:
    """The whole page."""
    named = dict.fromkeys(f"`{path}`" for path in ELSEWHERE)
    parts = [HEAD.format(elsewhere=", ".join(named)).rstrip()]
    parts += ["\n".join(_section(section)) for section in sections()]
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> Iterator[str]:
    title = " ".join(filter(None, (f"`{section.path}`" if section.path else "", section.title and f"({section.title})")))
    yield f"## {title if section.path else section.title}"
    yield ""
    if section.about:
        yield section.about
        yield ""
    if not section.keys:
        yield "It has no keys."
        return
    yield "| key | type | default | unit | meaning |"
    yield "|---|---|---|---|---|"
    yield from (_row(key, section) for key in section.keys)


def _row(key: Key, section: Section) -> str:
    name = key.path.removeprefix(section.path).lstrip(".")
    default = f"`{key.default}`".replace("\n", "\\n") if key.default not in ("", "required") else key.default
    cells = (f"`{name}`", key.type, default, key.unit, key.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def schema() -> str:
    """The JSON schema as text."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
