"""Any source to groups: reads, recognises the format, says so in one line, and refuses what does not fit."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from evenhand.data import convert
from evenhand.data.convert import holdout
from evenhand.data.detect import describe, detect
from evenhand.data.documents import document_groups
from evenhand.data.formats import FORMATS, Format, Kind
from evenhand.data.jsonl import group_to_json
from evenhand.data.readers import Placed, dataset_rows, hub_rows, read_rows, type_of
from evenhand.data.rows import BadRow, Row, look
from evenhand.data.source import DOCUMENTS, DataSource, parse_source
from evenhand.errors import UserError, did_you_mean
from evenhand.types import Group, Prompt

__all__ = ["Dataset", "holdout", "load"]

SAMPLE = 64
"""Rows that detection looks at."""
_KIND_OF_USE = {
    "prompts": Kind.PROMPTS,
    "demonstrations": Kind.DEMONSTRATIONS,
    "binary": Kind.BINARY,
    "pairs": Kind.PAIRS,
}


@dataclass(frozen=True)
class Dataset:
    """Groups with where they came from. `description` is the one line that states what was recognised."""

    groups: list[Group]
    description: str
    kind: Kind
    skipped: tuple[str, ...] = field(default=())
    """What was wrong with each row that `on_bad_row: skip` left out."""

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Each distinct prompt once, in order."""
        return [g.prompt for g in convert.prompts(self.groups)]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the groups' canonical form."""
        digest = hashlib.blake2b(digest_size=8)
        for group in self.groups:
            digest.update(json.dumps(group_to_json(group), sort_keys=True).encode() + b"\n")
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.groups)


def load(source: Mapping[str, Any] | str, *, where: str = "data") -> Dataset:
    """The groups of a source: a path, a Hub name, or a mapping of `DataSource` fields.

    Raises UserError when the source cannot be found, its format is unknown or ambiguous, or rows do not fit it; the
    error names file, line and field. With `on_bad_row: skip` bad rows are left out, counted, and listed in `skipped`.
    """
    spec = parse_source(source, where=where)
    made = _load_documents(spec, where) if is_text(spec) else _load_rows(spec, where)
    groups, description, kind = made.groups, f"{spec.label}: {made.description}", made.kind
    if spec.use:
        groups, kind = convert.convert(groups, spec.use, where=where), _KIND_OF_USE[spec.use]
        description += f"; used as {spec.use}: {len(groups)} groups"
    if spec.shuffle_seed is not None:
        groups = convert.shuffled(groups, spec.shuffle_seed)
    if spec.limit is not None and spec.limit < len(groups):
        groups = groups[: spec.limit]
        description += f"; the first {spec.limit}" + (" after shuffling" if spec.shuffle_seed is not None else "")
    if not groups:
        raise UserError(f"{spec.label} holds no rows", where=where, fix="check the path and the split")
    return Dataset(groups, description, kind, made.skipped)


def is_text(spec: DataSource) -> bool:
    """Whether the source is running text rather than rows."""
    if spec.format:
        return spec.format == DOCUMENTS
    return bool(spec.path) and (spec.file_type or type_of(Path(spec.path[0]))) == "text"


def placed_rows(spec: DataSource) -> Iterator[Placed]:
    """The rows of all files of a source, or of its Hub data set."""
    if spec.name:
        yield from hub_rows(spec.name, config=spec.config, split=spec.split, revision=spec.revision, streaming=spec.streaming)
    for name in spec.path:
        path = Path(name)
        if path.is_dir():
            yield from dataset_rows(path, spec.split)
        else:
            yield from read_rows(path, file_type=spec.file_type, encoding=spec.encoding, field=spec.field)


def recognise(spec: DataSource, sample: list[Placed], where: str) -> Format:
    """The format that was asked for, or the one that the first rows have."""
    if spec.format:
        return FORMATS[spec.format]
    if not sample:
        raise UserError(f"{spec.label} holds no rows", where=where, fix="check the path and the split")
    return detect([row for _, row in sample], where=spec.label, columns=spec.columns)


def _load_rows(spec: DataSource, where: str) -> Dataset:
    rows = placed_rows(spec)
    sample = list(itertools.islice(rows, SAMPLE))
    _check_columns(spec, sample, where)
    form = recognise(spec, sample, where)
    enough = None if spec.use or spec.shuffle_seed is not None else spec.limit
    groups, bad, count = _parse(spec, form, itertools.chain(sample, rows), enough)
    if bad and spec.on_bad_row == "error":
        raise _all_bad(bad, count)
    description = describe(form, [row for _, row in sample], groups, rows=count - len(bad), columns=spec.columns)
    if bad:
        description += f"; {len(bad)} bad rows skipped ({bad[0].where}: {bad[0].what}{'; ...' if len(bad) > 1 else ''})"
    kind = form.kind
    return Dataset(groups, description, kind, tuple(f"{b.where}: {b.what}" for b in bad))


def _parse(spec: DataSource, form: Format, rows: Iterable[Placed], enough: int | None) -> tuple[list[Group], list[BadRow], int]:
    """Groups, bad rows, and how many rows were read; stops once there are `enough` groups."""
    groups: list[Group] = []
    bad: list[BadRow] = []
    count = 0
    for place, data in rows:
        if enough is not None and len(groups) >= enough:
            break
        count += 1
        try:
            groups += form.groups(Row(data, place, spec.reading))
        except BadRow as error:
            bad.append(error)
    return groups, bad, count


def _all_bad(bad: list[BadRow], count: int) -> UserError:
    """The first bad row's error, with how many more there are."""
    first = bad[0]
    if len(bad) == 1:
        return first
    others = ", ".join(b.where.split(",")[0] for b in bad[1:6])
    more = f"{len(bad)} of {count} rows are bad; the next: {others}{', ...' if len(bad) > 6 else ''}"
    return BadRow(first.what, where=first.where, why="; ".join(filter(None, [first.why, more])), fix=first.fix)


def _check_columns(spec: DataSource, sample: list[Placed], where: str) -> None:
    """A renamed column must exist somewhere in the first rows."""
    for name, column in spec.columns.items():
        if sample and all(look(row, column) is None for _, row in sample):
            seen = list(dict.fromkeys(c for _, row in sample for c in row))
            raise UserError(f"no column '{column}'", where=f"{where}.columns.{name}", fix=did_you_mean(column, seen))


def _load_documents(spec: DataSource, where: str) -> Dataset:
    """Text files as openings and continuations."""
    groups: list[Group] = []
    separators: list[str] = []
    short = 0
    if not spec.path:
        raise UserError("documents are read from text files", where=where, fix="give path, or use format: text for rows")
    for name in spec.path:
        found, separator, too_short = document_groups(Path(name), spec.encoding, spec.cutting)
        groups += found
        separators.append(repr(separator))
        short += too_short
    description = (
        f"text documents, {spec.cutting.note}, {len(groups)} documents, separated by {', '.join(dict.fromkeys(separators))}"
    )
    if short:
        description += f"; {short} too short to continue were left out"
    return Dataset(groups, description, Kind.DEMONSTRATIONS)
