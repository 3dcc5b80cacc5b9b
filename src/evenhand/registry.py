"""One registry for all that has a name in an experiment file: what the package brings, and what a user adds to it.

A registry is a mapping from names to values in the order of registration. `register` puts a value in, with facts about it;
where it stands is remembered, so that two of one name are told apart and a user's file can be named and fingerprinted.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from typing_extensions import override

from evenhand.errors import UserError, did_you_mean

T = TypeVar("T")
REGISTRIES: dict[str, Registry[Any]] = {}
"""Every registry by its kind; each is made in the room whose things it names, when that room is first imported."""
PYTHON = re.compile(r"(.+\.py)(?::(\w+))?")
"""What people write for a function in a file of theirs: the file, and mostly its name."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One registered value, the facts declared beside it, and the file and line of the registration."""

    name: str
    value: T
    facts: Mapping[str, Any]
    source: Path
    line: int
    revision: int = 0
    """Raised when what it does changes for the same settings: see `revisions`."""

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
        self.aliases: dict[str, str] = {}
        self.refused: dict[str, tuple[str, str]] = {}
        self.answered: set[str] = set()
        REGISTRIES[kind] = self

    def register(
        self, name: str = "", *, was: str = "", also: Iterable[str] = (), revision: int = 0, **facts: Any
    ) -> Callable[[T], T]:
        """Decorator: what stands below is called `name`, by default as in Python. `was` is its name of before, still understood;
        `also` are its names in other tools, understood for good. `revision`: see `revisions`.

        Raises: UserError for a name that another place has already registered, and for a fact that this kind does not have.
        """
        for fact in facts.keys() - self.known_facts:
            raise UserError(f"a {self.kind} has no fact '{fact}'", where=name, fix=did_you_mean(fact, self.known_facts))

        def add(value: T) -> T:
            source, line, module = _place()
            entry = Entry(name or value.__name__, value, facts, source, line, revision)  # type: ignore[attr-defined]
            taken = self.entries.get(entry.name)
            if taken is not None and module != "__main__":  # a notebook's cell may be run again
                raise UserError(
                    f"a {self.kind} '{entry.name}' is registered twice", where=entry.where,
                    why=f"the other stands at {taken.where}", fix="give one of them another name",
                )  # fmt: skip
            self.entries[entry.name] = entry
            if was:
                self.former[was] = entry.name
            self.aliases |= dict.fromkeys(also, entry.name)
            return value

        return add

    def refuse(self, name: str, *, why: str, fix: str) -> None:
        """Answer a name that other tools have, or that several papers share, with the reason why there is none of it here."""
        self.refused[name] = (why, fix)

    @override
    def __getitem__(self, name: str) -> T:
        return self.entries[name if name in self.entries else {**self.former, **self.aliases}[name]].value

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    @override
    def __len__(self) -> int:
        return len(self.entries)

    def facts(self, fact: str) -> dict[str, Any]:
        """One fact of every entry that declares it."""
        return {name: entry.facts[fact] for name, entry in self.entries.items() if fact in entry.facts}

    def canonical(self, name: str) -> str:
        """The name here of a former one or of one from another tool, which is said once; any other name as it is."""
        known = {**self.former, **self.aliases}
        if name in self.entries or name not in known:
            return name
        if name not in self.answered:
            self.answered.add(name)
            of_before = f"is now called '{known[name]}'; the old name goes with the next release"
            _log.warning("the %s '%s' %s", self.kind, name, of_before if name in self.former else f"is '{known[name]}' here")
        return known[name]

    def unknown(self, name: str, *, where: str, known: Iterable[str] = ()) -> UserError:
        """What to say of a name that is not registered: why it is refused, or which names are close (of `known`, if given)."""
        if name in self.refused:
            why, fix = self.refused[name]
            return UserError(f"there is no {self.kind} '{name}'", where=where, why=why, fix=fix)
        fix = did_you_mean(str(name), known or self.entries)
        if "function" in self.entries and (found := PYTHON.fullmatch(str(name))):
            fix = f"a function of a file is '{{kind: function, path: \"{found[1]}:{found[2] or 'NAME'}\"}}'"
        return UserError(f"unknown {self.kind} '{name}'", where=where, fix=fix)

    def find(self, name: str, *, where: str = "") -> T:
        """The value of that name. Raises: UserError with the closest names."""
        if (name := self.canonical(name)) not in self.entries:
            raise self.unknown(name, where=where)
        return self.entries[name].value

    def check(self, settings: Mapping[str, Any] | str, *, where: str) -> tuple[Any, dict[str, Any]]:
        """The builder named by `settings`, `{"kind": NAME, **its keyword parameters}` or the name alone, and the parameters.

        A builder is registered as `builder(context, **parameters)`; its signature is the schema.

        Raises: UserError for an unknown name, an unknown or a missing key.
        """
        given = {"kind": settings} if isinstance(settings, str) else dict(settings)
        name = given.pop("kind", None)
        if name is None:
            raise UserError(f"the {self.kind} has no kind", where=f"{where}.kind", fix=did_you_mean("", self.entries))
        builder: Any = self.find(name, where=f"{where}.kind")
        check_keys(builder, given, where, f" for '{name}'")
        return builder, given

    def build(self, settings: Mapping[str, Any] | str, context: Any, *, where: str) -> Any:
        """What the builder named by `settings` makes of a context; see `check`."""
        builder, given = self.check(settings, where=where)
        return builder(context, **given)


def check_keys(builder: Callable[..., Any], given: Mapping[str, Any], where: str, whose: str = "") -> None:
    """Every given key is a parameter of the builder after its first, and every parameter without a default is given."""
    parameters = list(inspect.signature(builder).parameters.values())[1:]
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)  # checked where they go, e.g. by worlds.get
    known = {p.name: p.default is inspect.Parameter.empty for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}
    for key in given:
        if key not in known and not open_ended:
            raise UserError(
                f"unknown key '{key}'{whose}", where=where, fix=did_you_mean(key, known) if known else "it has no keys"
            )
    if missing := [key for key, required in known.items() if required and key not in given]:
        raise UserError(f"missing {' and '.join(map(repr, missing))}{whose}", where=where, fix="add it")


def parts(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """What JSON, a dataclass or any other value is made of, itself included, at any depth; each under the key it stands at."""
    yield key, value
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        for inner, part in value.items():
            yield from parts(part, inner)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from parts(part)


def revisions(value: Any) -> dict[str, str]:
    """The revisions above 0 of all that `value` names or is made of: of what is registered, and of settings.

    A revision is part of the key of a stage that runs it, and left out at 0. It is raised when the same settings give another
    result than before (a mend), so that results of before are not reused, and those of everything else are: where something is
    registered (`revision=1`), or for single values of a setting (`metadata={"revision": f}` of a spec's field, `f(value)`).
    """
    raised = [(r, entry) for r in REGISTRIES.values() for entry in r.entries.values() if entry.revision]
    by_name = {(key, entry.name): (r, entry) for r, entry in raised for key in r.named_by}
    by_value = {id(entry.value): (r, entry) for r, entry in raised}
    found: dict[str, int] = {}
    for key, part in parts(value):
        named = by_name.get((key, part)) if isinstance(part, str) else by_value.get(id(part)) or by_value.get(id(type(part)))
        if named is not None:
            found[f"revision of {named[0].kind} {named[1].name}"] = named[1].revision
        owner: Any = type(part)
        for name, revision in _revised(owner):
            found[f"revision of {owner.__name__}.{name}"] = revision(getattr(part, name))
    return {name: str(number) for name, number in found.items() if number}


@cache
def _revised(owner: type) -> tuple[tuple[str, Callable[[Any], int]], ...]:
    """The fields of a spec that have revisions."""
    own = fields(owner) if is_dataclass(owner) else ()
    return tuple((field.name, field.metadata["revision"]) for field in own if "revision" in field.metadata)


def forget(sources: Iterable[Path]) -> None:
    """Takes out of every registry what these files have put in: before a file is read anew, and when an experiment ends."""
    gone = {source.resolve() for source in sources}
    for registry in REGISTRIES.values():
        registry.entries = {name: entry for name, entry in registry.entries.items() if entry.source.resolve() not in gone}
        registry.former = {old: new for old, new in registry.former.items() if new in registry.entries}
        registry.aliases = {old: new for old, new in registry.aliases.items() if new in registry.entries}


def _place() -> tuple[Path, int, str]:
    """File, line and module of the registration: the innermost module that is being executed."""
    frame = sys._getframe(2)
    while frame.f_code.co_name != "<module>" and frame.f_back is not None:
        frame = frame.f_back
    return Path(frame.f_code.co_filename), frame.f_lineno, frame.f_globals.get("__name__", "")
