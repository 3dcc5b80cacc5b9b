"""docs/glossary.md is true: every word is defined where the page says, and every field of the records is a word of it."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "glossary.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| word")
]


@pytest.mark.parametrize(("word", "place"), [(row[0], row[2]) for row in ROWS])
def test_a_word_is_defined_where_the_page_says(word, place):
    file, _, name = place.strip("`").partition(":")
    path = ROOT / "src" / "evenhand" / file
    assert path.exists(), f"{word}: {file} is gone"
    if name:
        tree = ast.parse(path.read_text())
        targets = [t for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) for t in _targets(node)]
        defined = {n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)} | set(targets)
        assert name in defined, f"{word}: {file} defines no {name}"


def _targets(node):
    return [t.id for t in getattr(node, "targets", [getattr(node, "target", None)]) if isinstance(t, ast.Name)]


def test_no_word_has_two_meanings():
    words = [w for row in ROWS for w in re.split(r", ", row[0])]
    assert len(words) == len(set(words))
