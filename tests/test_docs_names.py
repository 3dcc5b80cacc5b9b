"""What pages, examples and the README name exists: files, modules to run, commands with their options, keys."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from evenhand.cli import app
from evenhand.methods import METHODS
from tests.conftest import ROOT
from tests.test_messages import known, paths

SRC = ROOT / "src" / "evenhand"
GENERATED = {"methods.md", "papers.md", "reference.md"}
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.yaml")),
]
WRITTEN = [page for page in PAGES if page.name not in GENERATED]
TOPS = "|".join(sorted({p.name for p in SRC.iterdir() if p.is_dir()} | {"tests", "benchmarks", "docs", "examples"}))
FILE = re.compile(rf"(?<![\w./-])(?:{TOPS})(?:/[\w-]+)+\.(?:py|md|yaml|ipynb|json)\b")
MODULE = re.compile(r"python -m ((?:evenhand|tests|benchmarks)(?:\.\w+)*)")
COMMAND = re.compile(r"evenhand ((?:[a-z]+ ?){1,2})([^`#|]*)")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")


def missing_files(text: str) -> list[str]:
    return [name for name in FILE.findall(text) if not any((top / name).exists() for top in (ROOT, SRC, ROOT / "docs"))]


def missing_modules(text: str) -> list[str]:
    return [name for name in MODULE.findall(text) if importlib.util.find_spec(name) is None]


@cache
def options() -> dict[str, frozenset[str]]:
    """What every command takes, by its words."""
    found, waiting = {}, [("", typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        inner = getattr(command, "commands", {})
        waiting += [(f"{name} {word}".strip(), below) for word, below in inner.items()]
        if not inner:
            found[name] = frozenset(o for p in command.params for o in (*p.opts, *p.secondary_opts)) | {"--help"}
    return found


def unknown_options(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        for words, rest in COMMAND.findall(line):
            first = words.split()
            command = next((c for c in (" ".join(first), first[0]) if c in options()), None)
            yield from ((command, o) for o in OPTION.findall(rest) if command and o not in options()[command])


def unknown_keys(text: str) -> Iterator[str]:
    """Dotted paths between backticks that begin with a section of a file and are no key of it."""
    sections = {path[0] for path in paths()}
    for quoted in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:: [^`]*)?`", text):
        if (
            quoted.split(".")[0] in sections
            and not known(quoted)
            and not quoted.endswith((".json", ".html", ".yaml", ".safetensors"))
        ):
            yield quoted


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = [*missing_files(text), *missing_modules(text), *unknown_options(text), *unknown_keys(text)]
    assert not found


def test_what_is_not_there_is_seen() -> None:
    assert missing_files("see `train/loop.py`, `tests/nowhere/test_x.py`") == ["tests/nowhere/test_x.py"]
    assert missing_modules("`python -m evenhand.manual`, `python -m benchmarks.nothing`") == ["benchmarks.nothing"]
    assert list(unknown_options("evenhand run X --plan --dry   # `evenhand data pairs F --out O -z`")) == [
        ("run", "--dry"),
        ("data pairs", "-z"),
    ]
    assert list(unknown_keys("`train.steps: 5`, `train.keep: best`, `lengths.prompt`")) == ["train.keep"]


def test_the_readme_counts_the_methods() -> None:
    assert f": {len(METHODS)}, each with" in (ROOT / "README.md").read_text(encoding="utf-8")
