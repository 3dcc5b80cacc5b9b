"""Every file of a checkout that is made from the code, with the function that makes it from its text of before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from evenhand.manual import methods, reference, results
from evenhand.manual.papers import page as papers
from evenhand.plan import first_defaults
from evenhand.spec import search_spaces
from evenhand.store.fingerprint import FIRST_DEFAULTS

DOCS = Path(__file__).resolve().parents[3] / "docs"

# The record of defaults comes first: what it holds is a fact of the code that no page decides.
GENERATED: Mapping[Path, Callable[[str], str]] = {
    FIRST_DEFAULTS: lambda _: first_defaults.text(),
    DOCS / "methods.md": lambda _: methods.page(),
    DOCS / "reference.md": lambda _: reference.page(),
    DOCS / "experiment.schema.json": lambda _: reference.schema(),
    DOCS / "results.schema.json": lambda _: results.schema(),
    DOCS / "papers.md": lambda _: papers.page(),
    DOCS / "tuning.md": search_spaces.with_table,
}
