"""Which format a file is in, from its first rows; nothing is guessed silently."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.data import chat_cleaning
from evenhand.data.formats import FORMATS, WEIGHT, Format, Kind
from evenhand.data.values import listed, look
from evenhand.errors import UserError
from evenhand.types import Group

_USUAL = (
    "prompt/chosen/rejected", "chosen/rejected", "messages", "conversations", "prompt/completion", "prompt/completion/label",
    "messages/label", "prompt/completions/scores", "alpaca", "question/answer", "prompt", "instruction", "turns", "text",
)  # fmt: skip
_TELLING = ("chosen", "rejected", "completion", "completions", "response", "messages", "conversations", "label", "scores")
"""Columns whose presence says that a dataset is meant to hold more than prompts."""


_COMPARED, _LONGEST_NAME = 50, 40
"""How many columns are looked at for misspellings, and the longest name of one."""


def detect(sample: Sequence[Mapping[str, Any]], *, where: str, columns: Mapping[str, str] | None = None) -> Format:
    """The one format of these rows (the first of a file), by the columns that at least half of them have.

    `columns` renames: {field: column}. Raises UserError when none or more than one fits, saying what was seen.
    """
    renamed = [_renamed(row, columns or {}) for row in sample]
    seen = Counter(name for row in renamed for name, value in row.items() if value is not None)
    common = {name for name, n in seen.items() if 2 * n >= len(renamed)}
    fitting = [f for f in FORMATS.values() if common.issuperset(f.fields) and _fits(f, renamed)]
    if not fitting:
        raise _unknown(seen, where)
    top = max(WEIGHT[f.kind] for f in fitting)
    best = [f for f in fitting if WEIGHT[f.kind] == top]
    best = [f for f in best if not any(set(f.fields) < set(g.fields) for g in best)]
    if len(best) > 1:
        raise UserError(
            f"the columns fit more than one format: {', '.join(f.name for f in best)}",
            where=where,
            why=f"the columns are {listed(seen)}",
            fix=f"say which: format: {best[0].name}",
        )
    _refuse_near_miss(best[0], {name: seen[name] for row in renamed for name in row}, where)
    return best[0]


def _renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row under the names that formats use; a column that was renamed no longer counts under its own name."""
    rest = {name: value for name, value in row.items() if name not in columns.values()}
    return {**rest, **{field: look(row, column) for field, column in columns.items()}}


def _fits(format_: Format, rows: Sequence[Mapping[str, Any]]) -> bool:
    return 2 * sum(format_.fits(row) for row in rows) > len(rows)


def _unknown(seen: Mapping[str, int], where: str) -> UserError:
    """The error for columns that no format has, with the misspelling that would explain them, if there is one."""
    fields = frozenset(field for f in FORMATS.values() for field in (*f.fields, *f.optional))
    near = {
        c: difflib.get_close_matches(c.lower(), fields, n=1, cutoff=0.75)
        for c in itertools.islice(seen, _COMPARED)
        if c not in fields and not c.endswith("_id") and len(c) <= _LONGEST_NAME
    }
    renames = {names[0]: column for column, names in near.items() if names}
    fix = "name the columns, for example columns: {prompt: question, completion: answer}"
    if renames:
        said = " and ".join(f"'{field}' by '{column}'" for field, column in renames.items())
        fix = f"did you mean {said}? Then columns: {{{', '.join(f'{f}: {c}' for f, c in renames.items())}}}"
    return UserError(
        f"no known format has the columns {listed(seen) or '(none)'}",
        where=where,
        why=f"known are {', '.join(_USUAL)}, and others like them ({len(FORMATS)} in all)",
        fix=fix,
    )


def _refuse_near_miss(format_: Format, seen: Mapping[str, int], where: str) -> None:
    """A misspelt column must not turn preference pairs into bare prompts."""
    known_fields = {*format_.fields, *format_.optional}
    for column in itertools.islice((c for c in seen if c not in known_fields and len(c) <= _LONGEST_NAME), _COMPARED):
        near = difflib.get_close_matches(column.lower(), _TELLING, n=1, cutoff=0.8)
        if near and (near[0] != column or format_.kind is Kind.PROMPTS) and near[0] not in format_.fields:
            known = "has no partner" if seen[column] else "is empty"
            meant = f"column '{column}' " + (f"looks like '{near[0]}'" if near[0] != column else known)
            raise UserError(
                f"the rows would be read as {format_.kind} ({', '.join(format_.fields)}), but {meant}",
                where=where,
                fix=f"rename it (columns: {{{near[0]}: {column}}}), or say format: {format_.name} to read them so",
            )


def describe(
    format_: Format,
    sample: Sequence[Mapping[str, Any]],
    groups: Sequence[Group],
    *,
    rows: int,
    columns: Mapping[str, str] | None = None,
) -> str:
    """One line: what was recognised, from the first rows and the groups made of all `rows`.

    >>> from evenhand.types import Completion, Prompt
    >>> groups = [Group(prompt=Prompt(content="?"), completions=(Completion(content="a"), Completion(content="b")))]
    >>> describe(FORMATS["prompt/chosen/rejected"], [{"prompt": "?", "chosen": "a", "rejected": "b", "id": 1}], groups, rows=1)
    'preference pairs, prompt explicit, verbatim text, 1 rows, fields: prompt, chosen, rejected (in meta: id)'
    """
    columns = columns or {}
    present = {name for row in sample for name, value in _renamed(row, columns).items() if value is not None}
    used = [*format_.fields, *(f for f in format_.optional if f in present)]
    named_fields = [f if columns.get(f, f) == f else f"{f} (from {columns[f]})" for f in used]
    kept = sorted(present.difference(used, columns))
    line = f"{format_.kind}, {format_.note}, {_style(format_, sample, groups, columns)}, {rows} rows"
    line += f", {len(groups)} groups" if len(groups) != rows else ""
    line += f", fields: {', '.join(named_fields)}"
    return line + (f" (in meta: {', '.join(kept)})" if kept else "")


def _style(format_: Format, sample: Sequence[Mapping[str, Any]], groups: Sequence[Group], columns: Mapping[str, str]) -> str:
    """Whether prompts are text as it is or turns of a conversation, and whether those came out of transcripts."""
    turns = sum(not isinstance(g.prompt.content, str) for g in groups)
    if not turns:
        return "verbatim text"
    source = any(chat_cleaning.is_transcript(look(row, columns.get(f, f))) for row in sample[:1] for f in format_.fields)
    return ("conversations" if turns == len(groups) else "text and conversations") + (" from transcripts" if source else "")
