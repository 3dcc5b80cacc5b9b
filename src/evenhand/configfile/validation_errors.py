"""Validation errors in the user's words: what is wrong, where it was written, what would be right."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from typing_extensions import override

from evenhand.configfile.document import Document, KeyPath
from evenhand.configfile.introspection import known_keys, type_at, words
from evenhand.errors import UserError, did_you_mean

Error = Mapping[str, Any]
"""One of pydantic's error dictionaries."""
Found = tuple[KeyPath, Error]
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")


class Faults(UserError):
    """Several user errors raised together; its text is theirs, one after the other."""

    def __init__(self, faults: Sequence[UserError]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{len(self.faults)} faults:\n" + "\n".join(str(f) for f in self.faults))

    @override
    def __reduce__(self) -> tuple:
        return (Faults, (self.faults,))

    @classmethod
    def of(cls, faults: Iterable[UserError]) -> UserError:
        """One fault as itself, several as Faults."""
        given = list(faults)
        return given[0] if len(given) == 1 else cls(given)

    @classmethod
    def raise_any(cls, faults: Iterable[UserError]) -> None:
        given = list(faults)
        if given:
            raise cls.of(given)


def fault_of(check: Callable[..., object], *given: Any, **named: Any) -> Iterator[UserError]:
    """The fault that a check raises; nothing where it raises none."""
    try:
        check(*given, **named)
    except UserError as error:
        yield error


def explain(errors: Iterable[Error], tp: Any, document: Document) -> list[UserError]:
    """Pydantic's errors for `document` read as `tp`, as user errors in the order of the file."""
    located = [(*_locate(e, document.data), e) for e in errors]
    chosen = _one_branch(located)
    faults = {str(f): f for path, error in chosen for f in [_explain(path, error, tp, document)]}
    return sorted(faults.values(), key=lambda f: _line(f.where))


def _line(where: str) -> tuple[str, int]:
    file, _, rest = where.partition(":")
    number = rest.split(":")[0].strip()
    return file, int(number) if number.isdigit() else 0


def _locate(error: Error, data: Any) -> tuple[KeyPath, KeyPath, str]:
    """Pydantic's `loc` -> (key path, the key path of the innermost untagged union on the way, the union's branch).

    A `loc` also names union branches: the parts that are no key of the data, but for the last part when a key is missing.
    """
    loc = error["loc"]
    path: list[str | int] = []
    union: KeyPath = ()
    branch = ""
    for i, part in enumerate(loc):
        if _has(data, part):
            path.append(part)
            data = data[part]
        elif i == len(loc) - 1 and error["type"] in _MISSING:
            path.append(part)
        elif not _is_tag(part, data):
            union, branch = tuple(path), str(part)
    return tuple(path), union, branch


def _has(data: Any, part: str | int) -> bool:
    if isinstance(data, Mapping):
        return part in data
    return isinstance(data, list) and isinstance(part, int) and part < len(data)


def _is_tag(part: str | int, data: Any) -> bool:
    return isinstance(data, Mapping) and part in (data.get("kind"), data.get("method"))


def _one_branch(located: Sequence[tuple[KeyPath, KeyPath, str, Error]]) -> list[Found]:
    """Of an untagged union only the branch that fits the data's shape speaks; if none does, they all say one thing."""
    chosen: list[Found] = []
    unions: dict[KeyPath, dict[str, list[Found]]] = defaultdict(lambda: defaultdict(list))
    for path, union, branch, error in located:
        (unions[union][branch] if branch else chosen).append((path, error))
    for union, branches in unions.items():
        every = list(branches.values())
        fitting = [found for found in every if all(path != union for path, _ in found)]
        if fitting or len(every) == 1:
            chosen += min(fitting or every, key=partial(_unfit, union))
        else:
            chosen.append((union, {**every[0][0][1], "type": "union"}))
    return chosen


def _unfit(union: KeyPath, found: Sequence[Found]) -> tuple[bool, int]:
    """How little the data are meant for a branch: those that refuse the word for it come last, then those with more faults."""
    return any(path in ((*union, "kind"), (*union, "method")) for path, _ in found), len(found)


def _explain(path: KeyPath, error: Error, tp: Any, document: Document) -> UserError:
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    key = str(path[-1]) if path else ""
    where = document.where(path)
    if kind in _UNKNOWN:
        known = known_keys(tp, path[:-1], document.data)
        fix = did_you_mean(key, known) if known else "remove it"
        return UserError(f"unknown key '{key:.80}'", where=where, fix=fix)
    if kind in _MISSING and isinstance(path[-1], int):
        need = type_at(tp, path[:-1], document.data)
        return UserError(f"{_shown(value)} is too short", where=document.where(path[:-1]), fix=f"give {words(need)}")
    if kind in _MISSING:
        need = type_at(tp, path, document.data)
        fix = f"add `{key}:`" + (f" ({words(need)})" if need is not None else "")
        return UserError(f"'{key}' is missing", where=document.where(path[:-1]), fix=fix)
    if kind == "union_tag_not_found":
        tag = context["discriminator"].strip("'")
        return UserError(f"'{tag}' is missing", where=where, fix=f"add `{tag}:` to say which is meant")
    if kind == "union_tag_invalid":
        tag = context["discriminator"].strip("'")
        known = context["expected_tags"].replace("'", "").split(", ")
        return UserError(
            f"unknown {tag} '{context['tag']:.80}'", where=document.where((*path, tag)), fix=did_you_mean(context["tag"], known)
        )
    if kind in ("literal_error", "enum"):
        return UserError(f"{_shown(value)} is not a choice here", where=where, fix=_choices(value, context["expected"]))
    if kind == "value_error":
        return UserError(str(context.get("error", error["msg"])), where=where)
    return UserError(f"{_shown(value)} is not valid", where=where, why=_reason(error, path, tp, document), fix=_hint(value, kind))


def _choices(value: Any, expected: str) -> str:
    return did_you_mean(str(value), expected.replace("'", "").replace(" or ", ", ").split(", "))


def _reason(error: Error, path: KeyPath, tp: Any, document: Document) -> str:
    """What is expected: from the type for a wrong type, from the bound for a wrong value."""
    need = type_at(tp, path, document.data)
    wrong_type = error["type"].endswith(("_type", "_from_float", "union"))
    if wrong_type and need is not None:
        return f"it must be {words(need)}"
    return error["msg"].replace("Input should", "it should").replace("Value", "it")


def _hint(value: Any, kind: str) -> str:
    if value is None:
        return "give a value, or remove the key to use the default"
    if isinstance(value, str) and kind.startswith(("int", "float", "bool")):
        return "remove the quotes" if value.strip().replace(".", "").replace("e-", "").isdigit() else ""
    return ""


def _shown(value: Any) -> str:
    if value is None:
        return "an empty value"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
