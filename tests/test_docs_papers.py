"""docs/papers.md: what it names exists, and no numbered item of the five documents is missing."""

from __future__ import annotations

import importlib
import re

import pytest
import typer

from evenhand.cli import app
from evenhand.manual.papers import item
from evenhand.manual.papers.item import PlaceHere, PlaceKind
from evenhand.manual.papers.page import DOCUMENTS
from evenhand.methods import METHODS
from evenhand.report.gallery import FIGURES
from evenhand.report.plots.curves import DETAILS, LOSS, METRICS
from evenhand.spec.arms import BEST_OF_N, START
from evenhand.spec.keys import sections
from tests.conftest import ROOT

PLACES = sorted({place for d in DOCUMENTS for i in d.items for place in i.places}, key=lambda p: (p.kind, p.name))
NUMBERED = {  # read off the documents by hand: kind -> the numbers it uses
    "online_offline": {"Equation": 7, "Table": 4, "Figure": 4},
    "without_reward": {"Equation": 13, "Table": 4, "Figure": 7},
    "rlhf_workflow": {"Definition": 2, "Equation": 9, "Algorithm": 2, "Theorem": 1, "Remark": 1, "Table": 7, "Figure": 12},
    "all_roads": {"Equation": 23, "Table": 4, "Figure": 10, "Hypothesis": 6},
}
NAMED = {"all_roads": {"Lemma 2.1", "Theorem 2.2", "Theorem 2.3", "Theorem 3.1", "Lemma B.1"}}
LECTURE = {  # its displayed equations; the slides number nothing
    "Teacher forcing", "Bradley-Terry", "Reward model loss", "Goal of RL", "Expected return", "Policy gradient",
    "REINFORCE update", "Regularized policy", "DPO loss", "DPO gradient",
}  # fmt: skip
TABLES_AND_FIGURES = {
    "Llama 2's demonstrations (Table 5)",
    "LIMA (Figure 2)",
    "Learning to summarize (Figure 1)",
    "Reward model accuracy (Table 2)",
}
"""What the slides show of other papers under those papers' numbers."""


def _commands(app: typer.Typer) -> set[str]:
    command = typer.main.get_command(app)
    found: set[str] = set()
    for name, inner in getattr(command, "commands", {}).items():
        found |= {name, *(f"{name} {below}" for below in getattr(inner, "commands", {}))}
    return found


def _code(name: str) -> object:
    """What `evenhand.NAME` is, by the longest module that its beginning names."""
    parts = ["evenhand", *name.split(".")]
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def _keys() -> set[str]:
    own = {f"{s.title.removeprefix('method: ')}: {k.name}" for s in sections() if s.title.startswith("method: ") for k in s.keys}
    return own | {k.path for s in sections() for k in s.keys}


KEYS, COMMANDS = _keys(), _commands(app)
DRAWN = {*FIGURES, *(m.key for m in (*METRICS, *DETAILS, LOSS))}


def _exists(place: PlaceHere) -> bool:
    match place.kind:
        case PlaceKind.METHOD:
            return place.name in {*METHODS, START, BEST_OF_N}
        case PlaceKind.KEY:
            return place.name in KEYS
        case PlaceKind.COMMAND:
            return place.name in COMMANDS
        case PlaceKind.EXAMPLE:
            return (ROOT / "examples" / place.name).is_file()
        case PlaceKind.PAGE:
            return (ROOT / "docs" / place.name).is_file()
        case PlaceKind.FIGURE:
            return place.name in DRAWN
    return callable(_code(place.name))


@pytest.mark.parametrize("place", PLACES, ids=lambda p: f"{p.kind} {p.name}")
def test_what_the_map_names_exists(place):
    assert _exists(place)


@pytest.mark.parametrize(
    "place",
    [item.method("dpo2"), item.key("train.setps"), item.key("dpo: gamma"), item.command("teory"), item.example("no.yaml"),
     item.figure("losses")],
)  # fmt: skip
def test_a_name_that_is_not_there_is_seen(place):
    assert not _exists(place)


@pytest.mark.parametrize("key", NUMBERED)
def test_no_numbered_item_is_missing(key):
    document = next(d for d in DOCUMENTS if d.key == key)
    suffix = " of the text" if key == "without_reward" else ""
    expected = {
        f"{kind} {n}{suffix if kind == 'Equation' else ''}" for kind, last in NUMBERED[key].items() for n in range(1, last + 1)
    }
    assert {i.number for i in document.items} == expected | NAMED.get(key, set())


def test_the_lecture_has_all_its_equations_and_what_it_shows_by_number():
    numbers = {i.number for d in DOCUMENTS if d.key == "course" for i in d.items}
    assert {n.removesuffix(" (equation)") for n in numbers if n.endswith("(equation)")} == LECTURE
    assert numbers >= TABLES_AND_FIGURES


def test_every_item_leads_somewhere_or_says_why_not():
    for document in DOCUMENTS:
        assert len({i.number for i in document.items}) == len(document.items)
        for i in document.items:
            assert i.places or i.missing, f"{document.key}, {i.number}"
            assert "|" not in i.holds + i.missing


def test_links_of_the_page_lead_to_headings():
    text = (ROOT / "docs" / "papers.md").read_text()
    headings = {re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-") for line in text.splitlines() if line[:3] == "## "}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == headings
