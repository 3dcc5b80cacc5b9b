"""One registry for all that has a name in an experiment file: what the package brings, and what a user adds to it.

A registry is a mapping from names to values in the order of registration. `register` puts a value in, with facts about it;
where it stands is remembered, so that two of one name are told apart and a user's file can be named and fingerprinted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from evenhand.errors import UserError, did_you_mean

T = TypeVar("T")
REGISTRIES: dict[str, Registry[Any]] = {}
"""Every registry by its kind; each is made in the room whose things it names, when that room is first imported."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One registered value, the facts declared beside it, and the file and line of the registration."""

    name: str
    value: T
    facts: Mapping[str, Any]
    source: Path
    line: int

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}"


class Registry(Mapping[str, T]):
    """Names of one `kind` of thing. `facts` are what may be declared beside each; a fact that is not declared is absent.

    `named_by` are the keys of settings that name it: `kind: length` names a reward. By default the kind itself.

    >>> SHAPES = Registry[Callable[[float], float]]("shape", facts=("corners",))
    >>> @SHAPES.register(was="box", corners=4)
    ... def square(side: float) -> float:
    ...     return side**2
    >>> SHAPES["square"](3.0), SHAPES.canonical("box"), SHAPES.facts("corners")
    (9.0, 'square', {'square': 4})
    >>> SHAPES.find("sqare", where="arms.a.shape")
    Traceback (most recent call last):
        ...
    evenhand.errors.UserError: arms.a.shape: unknown shape 'sqare'
      fix: did you mean 'square'?
    >>> del REGISTRIES["shape"]
    """

    def __init__(self, kind: str, *, facts: Iterable[str] = (), named_by: Iterable[str] = ()) -> None:
        self.kind, self.known_facts, self.named_by = kind, frozenset(facts), frozenset(named_by or (kind,))
        self.entries: dict[str, Entry[T]] = {}
        self.former: dict[str, str] = {}
        REGISTRIES[kind] = self

    def register(self, name: str = "", *, was: str = "", **facts: Any) -> Callable[[T], T]:
        """Decorator: what stands below is called `name`, by default as in Python. `was` is its name of before, still understood.

        Raises: UserError for a name that another place has already registered, and for a fact that this kind does not have.
        """
        for fact in facts.keys() - self.known_facts:
            raise UserError(f"a {self.kind} has no fact '{fact}'", where=name, fix=did_you_mean(fact, self.known_facts))

        def add(value: T) -> T:
            source, line, module = _place()
            entry = Entry(name or value.__name__, value, facts, source, line)  # type: ignore[attr-defined]
            taken = self.entries.get(entry.name)
            if taken is not None and module != "__main__":  # a notebook's cell may be run again
                raise UserError(
                    f"a {self.kind} '{entry.name}' is registered twice", where=entry.where,
                    why=f"the other stands at {taken.where}", fix="give one of them another name",
                )  # fmt: skip
            self.entries[entry.name] = entry
            if was:
                self.former[was] = entry.name
            return value

        return add

    def __getitem__(self, name: str) -> T:
        return self.entries[name if name in self.entries else self.former[name]].value

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def facts(self, fact: str) -> dict[str, Any]:
        """One fact of every entry that declares it."""
        return {name: entry.facts[fact] for name, entry in self.entries.items() if fact in entry.facts}

    def canonical(self, name: str) -> str:
        """The name as it is today: a former one is answered with a line and the present one, any other is returned as it is."""
        if name in self.entries or name not in self.former:
            return name
        _log.warning(
            "the %s '%s' is now called '%s'; the old name goes with the next release", self.kind, name, self.former[name]
        )
        return self.former[name]

    def find(self, name: str, *, where: str = "") -> T:
        """The value of that name. Raises: UserError with the closest names."""
        if (name := self.canonical(name)) not in self.entries:
            raise UserError(f"unknown {self.kind} '{name}'", where=where, fix=did_you_mean(str(name), self.entries))
        return self.entries[name].value


def forget(sources: Iterable[Path]) -> None:
    """Takes out of every registry what these files have put in: before a file is read anew, and when an experiment ends."""
    gone = {source.resolve() for source in sources}
    for registry in REGISTRIES.values():
        registry.entries = {name: entry for name, entry in registry.entries.items() if entry.source.resolve() not in gone}
        registry.former = {old: new for old, new in registry.former.items() if new in registry.entries}


def _place() -> tuple[Path, int, str]:
    """File, line and module of the registration: the innermost module that is being executed."""
    frame = sys._getframe(2)
    while frame.f_code.co_name != "<module>" and frame.f_back is not None:
        frame = frame.f_back
    return Path(frame.f_code.co_filename), frame.f_lineno, frame.f_globals.get("__name__", "")
