"""Text -> checked, frozen dataclasses. Every fault at once, each with its place, its key path and the way out.

The dataclasses are the schema; there is no second description. Types are strict (a quoted "3" is no number, `true` is no
integer, an integer is a number), unknown keys are faults, and unions of dataclasses are told apart by a `kind:` (or
`method:`) field of type `Literal`.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_type_hints

from evenhand.configfile.document import Document, KeyPath, key_path, parse
from evenhand.configfile.layers import Change, Extends, as_it_stands, override
from evenhand.configfile.validation_errors import Faults, explain
from evenhand.errors import UserError, did_you_mean

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """`value`, what was `given` (after `extends` and overrides), what is `effective` (defaults filled in), and the `source`."""

    value: T
    given: dict[str, Any]
    effective: dict[str, Any]
    source: str
    document: Document


def load(
    cls: type[T],
    source: str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    find: Callable[[str, Path], Path] | None = None,
    each: Change = as_it_stands,
    todays: Callable[[KeyPath], KeyPath] = tuple,
    before: Change = as_it_stands,
    problems: Callable[[T], Iterable[UserError]] = lambda value: (),
) -> Loaded[T]:
    """Read, merge, override and check an experiment.

    `source` is a path, YAML text (a string with a line break) or plain data. `find(name, folder)` resolves `extends`.
    `each` sees every file of it by itself, `todays` the key paths of the overrides, `before` the whole before it is checked.
    `problems` finds faults beyond types; a `where` there is a key path.

    Raises: UserError for one fault, Faults (a UserError) for several.
    """
    document, name = _document(source, find, each)
    document = before(override(document, overrides, todays))
    value = check(cls, document, problems)
    return Loaded(value, document.data, to_json(value), name, document)


def check(cls: type[T], document: Document, problems: Callable[[T], Iterable[UserError]] = lambda value: ()) -> T:
    """The document as a `cls`; raises all its faults together."""
    try:
        value = _validated(cls, document.data)
    except _Invalid as invalid:
        raise Faults.of(explain(invalid.errors, cls, document)) from None
    except UserError as error:  # from a __post_init__
        raise Faults.of(located(error, document)) from None
    Faults.raise_any(fault for error in problems(value) for fault in located(error, document))
    return value


def located(error: UserError, document: Document, keys: Collection[str] | None = None) -> list[UserError]:
    """The same faults with their key path (their `where`) preceded by the place it was set at.

    With `keys`, a `where` that does not begin with one of them is taken for something else (a file, a prompt) and left alone.
    """
    parts = error.faults if isinstance(error, Faults) else (error,)
    return [_located(e, key_path(e.where), document, keys) for e in parts]


def _located(error: UserError, path: KeyPath, document: Document, keys: Collection[str] | None) -> UserError:
    if keys is not None and (not path or path[0] not in keys):
        return error
    return error.placed(document.where(path))


def from_json(cls: type[T], data: Mapping[str, Any]) -> T:
    """The inverse of `to_json`."""
    return check(cls, Document(dict(data)))


def to_json(value: Any) -> Any:
    """A dataclass as JSON values: what was given and every default. Field order is kept.

    >>> to_json({"lr": 1e-4, "out": Path("a/b"), "seeds": (0, 1)})
    {'lr': 0.0001, 'out': 'a/b', 'seeds': [0, 1]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, enum.Enum):
        return to_json(value.value)
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(to_json(v) for v in value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def from_signature(
    function: Callable[..., Any], values: Mapping[str, Any], where: str, *, skip: Sequence[str] = ()
) -> dict[str, Any]:
    """Checks `values` against a function's annotations: its signature is the schema.

    Returns every parameter (but those in `skip`) as a keyword argument, defaults filled in. `where` is the key path of
    the mapping, such as "arms.dpo". Raises all faults together.

    >>> def dpo(*, beta: float = 0.1, steps: int): ...
    >>> from_signature(dpo, {"steps": 3}, "arms.a")
    {'beta': 0.1, 'steps': 3}
    >>> from_signature(dpo, {"bta": 1, "steps": 3}, "arms.a")
    Traceback (most recent call last):
    evenhand.errors.UserError: arms.a.bta: unknown key 'bta'
      fix: did you mean 'beta'?
    """
    if not isinstance(values, Mapping):
        fix = f"write `{where.split('.')[-1]}: {{KEY: VALUE}}`"
        raise UserError(f"{values!r} is no mapping of keys to values", where=where, fix=fix)
    hints, declared = _declared(function)
    parameters = {n: p for n, p in declared.items() if n not in skip}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if any(p.kind not in named for p in parameters.values()):
        raise TypeError(f"{function.__qualname__} takes unnamed parameters; its signature cannot be a schema")
    faults: list[UserError] = []
    for name in values.keys() - parameters.keys():
        faults.append(UserError(f"unknown key '{name}'", where=f"{where}.{name}", fix=did_you_mean(name, parameters)))
    arguments: dict[str, Any] = {}
    for name, parameter in parameters.items():
        tp = hints.get(name, Any)
        if name not in values:
            if parameter.default is inspect.Parameter.empty:
                faults.append(UserError(f"'{name}' is missing", where=where, fix=f"add `{name}:`"))
            else:
                arguments[name] = parameter.default
            continue
        try:
            arguments[name] = _validated(tp, values[name])
        except _Invalid as invalid:
            faults += explain(invalid.errors, tp, Document(values[name], prefix=(*key_path(where), name)))
    Faults.raise_any(faults)
    return arguments


@functools.cache  # a method's annotations are texts, compiled each time they are asked for; an experiment asks for every arm
def _declared(function: Callable[..., Any]) -> tuple[Mapping[str, Any], Mapping[str, inspect.Parameter]]:
    return get_type_hints(function, include_extras=True), inspect.signature(function).parameters


class _Invalid(Exception):
    def __init__(self, errors: list[dict[str, Any]]) -> None:
        self.errors = errors


def _validated(tp: Any, data: Any) -> Any:
    """Pydantic in strict JSON mode: lists become tuples, text becomes a Path or an Enum, nothing else is converted."""
    from pydantic import ValidationError

    try:
        text = json.dumps([data], default=to_json)
    except (RecursionError, ValueError) as error:  # plain data of a caller; files are bounded when they are read
        raise UserError(f"the data cannot be read: {error!s:.200}", fix="give numbers, texts, lists and mappings") from None
    try:
        return adapter(tp).validate_json(text)[0]
    except ValidationError as error:
        raise _Invalid([{**e, "loc": e["loc"][1:]} for e in error.errors(include_url=False)]) from None


@functools.cache  # making one takes milliseconds, and an experiment of many arms asks for the same ones again and again
def adapter(tp: Any, extra: Literal["forbid", "ignore"] = "forbid") -> Any:
    """What pydantic reads one value of a type with, strictly; keys that the type does not have are faults, or are left out."""
    from pydantic import ConfigDict, TypeAdapter

    # The one-item tuple carries the strict configuration to standard dataclasses, which cannot be given one directly.
    return TypeAdapter(tuple[tp], config=ConfigDict(extra=extra, strict=True))  # type: ignore[valid-type]


def _document(
    source: str | Path | Mapping[str, Any], find: Callable[[str, Path], Path] | None, each: Change
) -> tuple[Document, str]:
    files = Extends(find, each)
    if isinstance(source, Mapping):
        return files.extended(Document(dict(source)), Path()), "data"
    if isinstance(source, str) and "\n" in source:
        return files.extended(parse(source, "text"), Path()), "text"
    return files.read(Path(source)), str(source)
