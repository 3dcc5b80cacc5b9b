"""One numbered thing of a document, and where it is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class PlaceKind(StrEnum):
    """What something here is; it says how the map links it and how a test finds it."""

    METHOD = "method"
    """A name of `evenhand.methods.METHODS`."""
    KEY = "key"
    """A key of an experiment file, `section.key` as in docs/reference.md; a method's own is `METHOD: key`."""
    COMMAND = "command"
    """What follows `evenhand`."""
    EXAMPLE = "example"
    """A file under examples/."""
    PAGE = "page"
    """A file under docs/."""
    CODE = "code"
    """A function, class or table of the package, `room.module.name`."""
    FIGURE = "figure"
    """What a run's report draws: `run.plot(NAME)` in Python, `--figure NAME` for a page of results."""


@dataclass(frozen=True, slots=True)
class PlaceHere:
    """Somewhere here that an item of a document leads to."""

    kind: PlaceKind
    name: str


def method(name: str) -> PlaceHere:
    return PlaceHere(PlaceKind.METHOD, name)


def key(name: str) -> PlaceHere:
    return PlaceHere(PlaceKind.KEY, name)


def command(name: str) -> PlaceHere:
    return PlaceHere(PlaceKind.COMMAND, name)


def example(name: str) -> PlaceHere:
    return PlaceHere(PlaceKind.EXAMPLE, name)


def result(name: str) -> PlaceHere:
    """A page of measured results."""
    return PlaceHere(PlaceKind.PAGE, f"results/{name}.md")


def manual(name: str) -> PlaceHere:
    """A page of the manual."""
    return PlaceHere(PlaceKind.PAGE, f"{name}.md")


def code(name: str) -> PlaceHere:
    return PlaceHere(PlaceKind.CODE, name)


def figure(name: str) -> PlaceHere:
    return PlaceHere(PlaceKind.FIGURE, name)


@dataclass(frozen=True, slots=True)
class PaperItem:
    """A table, figure, equation, algorithm or theorem: what it holds, in our words, and where that is here.

    `places` is empty exactly where `missing` says why the item is not had in the small; a `missing` beside places says what of
    the item they leave out.
    """

    number: str
    holds: str
    places: tuple[PlaceHere, ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Paper:
    """A document and its items, in its own order."""

    key: str
    title: str
    about: str
    items: tuple[PaperItem, ...]


def items(
    rows: Mapping[str, tuple[str, tuple[PlaceHere, ...]] | tuple[str, tuple[PlaceHere, ...], str]],
) -> tuple[PaperItem, ...]:
    """`{number: (holds, places)}`, or with what is missing as a third part.

    >>> items({"Equation 1": ("a sum", (), "no sums here")})[0].missing
    'no sums here'
    """
    return tuple(PaperItem(number, *row) for number, row in rows.items())
