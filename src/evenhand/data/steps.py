"""Declarative steps that bring a source's own rows into a known format: `keep`, `rename`, `fill`, `split`, `remove`,
`remove_prefix`, `ending`, `pair`, `answers`, `collect`.

A step is one entry of `steps:` in a source or recipe, `{NAME: options}`. Steps see one row at a time (`collect` sees all),
in the order written. Columns may be dotted paths into objects and lists: `info.post`, `summaries.0.text`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from evenhand.data.readers import Placed
from evenhand.data.rows import BadRow, Row
from evenhand.data.values import look, shown
from evenhand.errors import UserError, one_of

RowStep = Callable[[Row, Mapping[str, Any]], Mapping[str, Any] | None]
"""A row under new names or with new fields; None leaves it out."""
Stepped = tuple[str, Mapping[str, Any] | BadRow]
"""What comes out of steps: a placed row, or the error of a row that a step could not read."""

_TEXT: tuple[Callable[[Any], bool], str] = (lambda v: isinstance(v, str), "text")
_NUMBER = (lambda v: isinstance(v, int | float) and not isinstance(v, bool), "a number")
_LIST = (lambda v: isinstance(v, list | tuple), "a list")
_ANYTHING = (lambda v: True, "anything")
KINDS: Mapping[Any, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("above", "at_least", "below"), _NUMBER),
    **dict.fromkeys(("in", "every_in", "ties", "unscored"), _LIST),
    **dict.fromkeys(("is", "is_not", "first_is", "second_is"), _ANYTHING),
    "present": (lambda v: isinstance(v, bool), "true or false"),
    "at": (lambda v: isinstance(v, str) and v != "", "the text to cut at"),
    "into": (lambda v: _texts(v) and len(v) == 2, "the names of two columns"),
    ("collect", "score"): (lambda v: isinstance(v, str) or _texts(v), "a column or a list of columns"),
}
"""What options take that are not plain text: a test and what to call it."""
_FIELD = re.compile(r"\{([^{}]+)\}")


def run_steps(rows: Iterable[Placed], steps: Sequence[Mapping[str, Any]], left_out: Counter[str]) -> Iterator[Stepped]:
    """Rows after all steps. `left_out` counts the rows that each step dropped on purpose."""
    stepped: Iterator[Stepped] = iter(rows)
    for step in steps:
        ((name, options),) = step.items()
        stepped = _collect(stepped, options) if name == "collect" else _each(stepped, name, options, left_out)
    return stepped


def check_steps(steps: Any, where: str) -> None:
    """Raises UserError when `steps` is not a list of single known steps with the options they need."""
    if not isinstance(steps, list | tuple):
        raise UserError(f"expected a list of steps, found {shown(steps)}", where=where)
    for index, step in enumerate(steps):
        place = f"{where}[{index}]"
        if not isinstance(step, Mapping) or len(step) != 1:
            raise UserError(f"expected one step as {{NAME: options}}, found {shown(step)}", where=place)
        ((name, options),) = step.items()
        one_of("step", name, OPTIONS, where=place)
        if name == "keep" and not isinstance(options, Mapping | list | tuple):
            raise UserError(f"expected a test or a list of tests, found {shown(options)}", where=f"{place}.keep")
        needed = (("column",), tuple(TESTS)) if name == "keep" else OPTIONS[name]
        for each in _conditions(options) if name == "keep" else [options]:
            _check_options(each, *needed, where=f"{place}.{name}")
            _check_kinds(name, each, f"{place}.{name}")
        if name == "answers" and ("join" in options) != ("match" in options):
            raise UserError(
                "join and match go together", where=f"{place}.answers", fix="name the list, and what tells its items apart"
            )
        if name == "remove":
            _check_pattern(options["pattern"], f"{place}.remove")


def _check_kinds(name: str, options: Mapping[str, Any], where: str) -> None:
    """Each value must be of the kind that its option takes; most are names of columns or other text."""
    for key, value in options.items():
        kind = KINDS.get((name, key)) or (KINDS.get(key) if name not in ("rename", "fill") else None) or _TEXT
        if not kind[0](value):
            raise UserError(f"expected {kind[1]}, found {shown(value)}", where=f"{where}.{key}")


def _check_pattern(pattern: Any, where: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise UserError(f"not a regular expression: {error}", where=where) from None


def _check_options(options: Any, needed: Sequence[str], optional: Sequence[str], *, where: str) -> None:
    if not isinstance(options, Mapping):
        raise UserError(f"expected options as a mapping, found {shown(options)}", where=where)
    if not needed and not optional:
        return
    for key in options:
        one_of("option", key, (*needed, *optional), where=where)
    missing = [key for key in needed if key not in options]
    if missing:
        raise UserError(f"the step needs {', '.join(missing)}", where=where)


def _each(rows: Iterator[Stepped], name: str, options: Any, left_out: Counter[str]) -> Iterator[Stepped]:
    for place, data in rows:
        if isinstance(data, BadRow):
            yield place, data
            continue
        try:
            made = STEPS[name](Row(data, place), options)
        except BadRow as error:
            yield place, error
            continue
        if made is None:
            left_out[name] += 1
        else:
            yield place, made


# the steps --------------------------------------------------------------------------------------------------------------


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)


def _conditions(options: Any) -> list[Mapping[str, Any]]:
    return [options] if isinstance(options, Mapping) else list(options)


def _is(value: Any, wanted: Any) -> bool:
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _among(value: Any, wanted: Iterable[Any]) -> bool:
    return any(_is(value, each) for each in wanted)


TESTS: Mapping[str, Callable[[Row, str, Any], bool]] = {
    "is": lambda row, column, wanted: _is(look(row.data, column), wanted),
    "is_not": lambda row, column, wanted: not _is(look(row.data, column), wanted),
    "in": lambda row, column, wanted: _among(look(row.data, column), wanted),
    "every_in": lambda row, column, wanted: all(_among(each, wanted) for each in row.items(column)),
    "above": lambda row, column, bound: row.number(column) > bound,
    "at_least": lambda row, column, bound: row.number(column) >= bound,
    "below": lambda row, column, bound: row.number(column) < bound,
    "above_column": lambda row, column, other: row.number(column) > row.number(other),
    "same_as": lambda row, column, other: look(row.data, column) == look(row.data, other),
    "present": lambda row, column, wanted: (look(row.data, column) not in (None, "")) == wanted,
}
"""What `keep` can ask of a column."""


def _keep(row: Row, options: Any) -> Mapping[str, Any] | None:
    """Keep rows for which every test holds: `{column: score_ratio, above: 2}`, or a list of such."""
    for condition in _conditions(options):
        column = condition["column"]
        if not all(TESTS[name](row, column, value) for name, value in condition.items() if name != "column"):
            return None
    return row.data


def _rename(row: Row, options: Mapping[str, str]) -> Mapping[str, Any]:
    """`{new: old}`: the old column (or path) under a new name."""
    made = {name: row.get(column) for name, column in options.items()}
    return {**{k: v for k, v in row.data.items() if k not in options.values()}, **made}


def _fill(row: Row, options: Mapping[str, str]) -> Mapping[str, Any]:
    """`{prompt: "Title: {info.title}"}`: new text columns with the named columns filled in; lists are joined by commas."""

    def text(match: re.Match[str]) -> str:
        value = row.get(match.group(1))
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    return {**row.data, **{name: _FIELD.sub(text, pattern) for name, pattern in options.items()}}


def _split(row: Row, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """`{column: answer, at: "####", into: [steps, answer]}`: a text cut in two at the last such mark, blanks around taken off."""
    text, mark = row.text(options["column"]), options["at"]
    before, found, after = text.rpartition(mark)
    if not found:
        raise row.bad(options["column"], f"does not contain '{mark}'")
    rest = {k: v for k, v in row.data.items() if k != options["column"]}
    return {**rest, **dict(zip(options["into"], (before.strip(), after.strip()), strict=True))}


def _remove(row: Row, options: Mapping[str, str]) -> Mapping[str, Any]:
    """`{column: steps, pattern: "<<[^<>]*>>"}`: a text without what matches a regular expression."""
    return {**row.data, options["column"]: re.sub(options["pattern"], "", row.text(options["column"]))}


def _remove_prefix(row: Row, options: Mapping[str, str]) -> Mapping[str, Any]:
    """`{column: completion, prefix: prompt}`: a text, or each of a list of texts, without another column's at its beginning.

    Blanks around the prefix are no part of it; a text that does not begin with it is a bad row.
    """
    column, prefix = options["column"], row.text(options["prefix"]).strip()
    value = row.get(column)
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str) or not text.lstrip().startswith(prefix):
            raise row.bad(column, f"does not begin with the {options['prefix']}: {shown(text)}")
    cut = [text.lstrip().removeprefix(prefix) for text in texts]
    return {**row.data, column: cut if isinstance(value, list) else cut[0]}


def _ending(row: Row, options: Mapping[str, str]) -> Mapping[str, Any]:
    """`{column: prompt, old: "TL;DR:", new: "Two-Word TL;DR:"}`: another ending of a text, which must end with the old one."""
    text = row.text(options["column"]).rstrip()
    if not text.endswith(options["old"]):
        raise row.bad(options["column"], f"does not end with '{options['old']}'")
    return {**row.data, options["column"]: text.removesuffix(options["old"]) + options["new"]}


def _pair(row: Row, options: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Two answer columns and a column that says which is better: sets chosen and rejected, leaves ties out."""
    winner = row.get(options["winner"])
    first, second = row.get(options["first"]), row.get(options["second"])
    if _is(winner, options["first_is"]):
        return {**row.data, "chosen": first, "rejected": second}
    if _is(winner, options["second_is"]):
        return {**row.data, "chosen": second, "rejected": first}
    if _among(winner, options.get("ties", ())):
        return None
    expected = f"{options['first_is']!r} or {options['second_is']!r}"
    raise row.bad(options["winner"], f"expected {expected}, found {shown(winner)}")


def _answers(row: Row, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """A list of objects as completions, with their scores or ranks; `join` finds the scores in a second list by `match`.

    `unscored` lists values that mean "not rated".
    """
    items = row.items(options["list"])
    rated = items
    if "join" in options:
        others = dict(zip(_names(row, options["join"], options["match"]), row.items(options["join"]), strict=True))
        if len(others) < len(row.items(options["join"])):
            raise row.bad(options["join"], f"two of them have one '{options['match']}'", why="which is meant cannot be known")
        rated = [others.get(name, {}) for name in _names(row, options["list"], options["match"])]
    made: dict[str, Any] = {"completions": [look(item, options["text"]) for item in items]}
    for kind in ("score", "rank"):
        if kind in options:
            values = [look(r, options[kind]) for r in rated]
            made[f"{kind}s"] = [None if _among(v, options.get("unscored", ())) else v for v in values]
    return {**{k: v for k, v in row.data.items() if k not in (options["list"], options.get("join"))}, **made}


def _names(row: Row, column: str, match: str) -> list[str | float]:
    """What each object of a list has under `match`, which tells it from the others."""
    names = [look(item, match) for item in row.items(column)]
    for name in names:
        if not isinstance(name, str | int | float):
            raise row.bad(column, f"expected a text or a number as '{match}' of each, found {shown(name)}")
    return names


def _collect(rows: Iterator[Stepped], options: Mapping[str, Any]) -> Iterator[Stepped]:
    """Rows with one answer each as one row per prompt: `by` the prompt column, `text` the answer, `score` one or more columns.

    Several score columns are added up. The other columns are those of a prompt's first row.
    """
    gathered: dict[str, tuple[str, dict[str, Any]]] = {}
    columns = [options["score"]] if isinstance(options["score"], str) else list(options["score"])
    used = {options["text"], *columns}
    for place, data in rows:
        if isinstance(data, BadRow):
            yield place, data
            continue
        row = Row(data, place)
        try:
            key, answer, score = row.text(options["by"]), row.text(options["text"]), sum(row.number(c) for c in columns)
        except BadRow as error:
            yield place, error
            continue
        rest = {name: value for name, value in data.items() if name not in used}
        _, made = gathered.setdefault(key, (place, {**rest, "completions": [], "scores": []}))
        made["completions"].append(answer)
        made["scores"].append(score)
    yield from gathered.values()


STEPS: Mapping[str, RowStep] = {
    "keep": _keep, "rename": _rename, "fill": _fill, "split": _split, "remove": _remove, "remove_prefix": _remove_prefix,
    "ending": _ending, "pair": _pair, "answers": _answers,
}  # fmt: skip
OPTIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "keep": ((), ()),
    "rename": ((), ()),
    "fill": ((), ()),
    "split": (("column", "at", "into"), ()),
    "remove": (("column", "pattern"), ()),
    "remove_prefix": (("column", "prefix"), ()),
    "ending": (("column", "old", "new"), ()),
    "pair": (("first", "second", "winner", "first_is", "second_is"), ("ties",)),
    "answers": (("list", "text"), ("score", "rank", "join", "match", "unscored")),
    "collect": (("by", "text", "score"), ()),
}
"""Per step: options it needs, options it may have. `keep`, `rename` and `fill` take columns as keys."""
