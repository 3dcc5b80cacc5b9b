"""Any source to groups: reads, recognises the format, says so in one line, and refuses what does not fit."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from evenhand.data import clean, convert
from evenhand.data.convert import holdout
from evenhand.data.detect import describe, detect
from evenhand.data.documents import document_groups
from evenhand.data.formats import FORMATS, Format, Kind
from evenhand.data.jsonl import group_to_json
from evenhand.data.mix import OWN, SOURCE, MixPart, mix
from evenhand.data.readers import Placed, dataset_rows, hub_rows, read_rows
from evenhand.data.recipes import with_recipe
from evenhand.data.rows import BadRow, Row
from evenhand.data.source import DataSource, Mixture, is_text, parse_mixture, parse_source
from evenhand.data.steps import Stepped, run_steps
from evenhand.data.values import look
from evenhand.data.watch import Watch, refuse_repeated_prompts
from evenhand.errors import UserError, did_you_mean
from evenhand.types import Group, Prompt

__all__ = ["Dataset", "holdout", "load"]

_log = logging.getLogger(__name__)
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
    """The groups of a source: a path, a Hub name, a mapping of `DataSource` fields, a `recipe`, or a `mix` of sources.

    Raises UserError when the source cannot be found, its format is unknown or ambiguous, or rows do not fit it; the
    error names file, line and field. With `on_bad_row: skip` bad rows are left out, counted, and listed in `skipped`.
    """
    if isinstance(source, Mapping):
        source = with_recipe(source, where=where)
        if "mix" in source:
            return _load_mixture(parse_mixture(source, where=where), where)
    spec = parse_source(source, where=where)
    made = _load_documents(spec, where) if is_text(spec) else _load_rows(spec, where)
    groups, said, kind = _refine(spec, made, where)
    if not groups:
        raise _nothing(spec, where, made.skipped)
    return Dataset(groups, f"{spec.label}: {said}", kind, made.skipped)


def _nothing(spec: DataSource, where: str, skipped: Sequence[str] = ()) -> UserError:
    """The error for a source of which nothing is left, with the first bad row if bad rows are the reason."""
    rows = "1 bad row was" if len(skipped) == 1 else f"{len(skipped)} bad rows were"
    why = f"{rows} skipped; the first: {skipped[0]}" if skipped else ""
    what = "no usable rows" if where == spec.label else f"{spec.label} holds no usable rows"
    return UserError(what, where=where, why=why, fix="check the path, the split and the steps")


def _refine(spec: DataSource, made: Dataset, where: str) -> tuple[list[Group], str, Kind]:
    """What a source asks to be made of its groups, in a fixed order, and the line that tells it."""
    groups, said, kind = made.groups, [made.description], made.kind
    if spec.use and groups:
        groups, kind = convert.convert(groups, spec.use, where=where), _KIND_OF_USE[spec.use]
        said.append(f"used as {spec.use}: {len(groups)} groups")
    if spec.margin is not None:
        groups = convert.with_margin(groups, spec.margin)
        said.append(f"{len(groups)} with a margin above {spec.margin:g}")
    if spec.per_prompt is not None:
        groups = convert.at_most_per_prompt(groups, spec.per_prompt)
        said.append(f"{len(groups)} after at most {spec.per_prompt} per prompt")
    if spec.clean:
        groups, removed = clean.clean(groups, spec.clean, _evaluation_texts(spec, where))
        said.append(f"{len(groups)} after cleaning ({removed})")
    if spec.shuffle_seed is not None:
        groups = convert.shuffled(groups, spec.shuffle_seed)
    if spec.limit is not None and spec.limit < len(groups):
        groups = groups[: spec.limit]
        said.append(f"the first {spec.limit}" + (" after shuffling" if spec.shuffle_seed is not None else ""))
    return groups, "; ".join(said), kind


def _evaluation_texts(spec: DataSource, where: str) -> list[str]:
    """The prompts of the sources that `clean: {against: ...}` names."""
    against = spec.clean.get("against", ())
    sources: Sequence[Any] = [against] if isinstance(against, str | Mapping) else against
    return [p.text for source in sources for p in load(source, where=f"{where}.clean.against").prompts]


def _load_mixture(spec: Mixture, where: str) -> Dataset:
    """Every part of a mixture, mixed by its shares."""
    loaded = [load(part, where=f"{where}.mix[{i}]") for i, part in enumerate(spec.sources)]
    kinds = {d.kind for d in loaded}
    if len(kinds) > 1:
        found = ", ".join(f"{name}: {d.kind}" for name, d in zip(spec.names, loaded, strict=True))
        raise UserError("the parts of a mixture differ in kind", where=f"{where}.mix", why=found, fix="give each the same use:")
    parts = [
        MixPart(name=name, groups=d.groups, weight=weight, cap=cap)
        for name, d, weight, cap in zip(spec.names, loaded, spec.weights, spec.caps, strict=True)
    ]
    groups = mix(parts, seed=spec.seed, size=spec.size, temperature=spec.temperature)
    taken = Counter(g.prompt.meta[SOURCE] for g in groups)
    if any(OWN in g.prompt.meta for g in groups):
        _log.warning("%s.mix: the column '%s' of rows is in '%s', as it holds the name of a row's part", where, SOURCE, OWN)
    said = ", ".join(f"{taken[p.name]} of {len(p.groups)} {p.name}" for p in parts)
    lines = "\n".join(f"  {d.description}" for d in loaded)
    skipped = tuple(line for d in loaded for line in d.skipped)
    return Dataset(groups, f"mixture of {len(groups)} {loaded[0].kind}: {said}\n{lines}", loaded[0].kind, skipped)


# rows -------------------------------------------------------------------------------------------------------------------


def placed_rows(spec: DataSource) -> Iterator[Placed]:
    """The rows of all files of a source, or of its Hub data set."""
    if spec.name:
        yield from hub_rows(
            spec.name, config=spec.config, split=spec.split, revision=spec.revision, streaming=spec.streaming, files=spec.files
        )
    for name in spec.path:
        path = Path(name)
        if path.is_dir():
            yield from dataset_rows(path, spec.split)
        else:
            yield from read_rows(path, file_type=spec.file_type, encoding=spec.encoding, field=spec.field)


def recognise(spec: DataSource, sample: Sequence[Stepped], where: str) -> Format:
    """The format that was asked for, or the one that the first rows have; UserError when a renamed column is not there."""
    rows = [row for _, row in sample if not isinstance(row, BadRow)]
    for name, column in spec.columns.items():
        if rows and all(look(row, column) is None for row in rows):
            seen = list(itertools.islice(dict.fromkeys(c for row in rows for c in row), SAMPLE))
            raise UserError(f"no column '{column}'", where=f"{where}.columns.{name}", fix=did_you_mean(column, seen))
    if spec.format:
        return FORMATS[spec.format]
    if not rows:
        if spec.on_bad_row == "error" and (bad := [row for _, row in sample if isinstance(row, BadRow)]):
            raise bad[0]
        raise _nothing(spec, where, [f"{row.where}: {row.what}" for _, row in sample if isinstance(row, BadRow)])
    return detect(rows, where=spec.label, columns=spec.columns)


def _load_rows(spec: DataSource, where: str) -> Dataset:
    left_out: Counter[str] = Counter()
    rows = run_steps(placed_rows(spec), spec.steps, left_out)
    sample = list(itertools.islice(rows, SAMPLE))
    form = recognise(spec, sample, where)
    later = (spec.use, spec.shuffle_seed, spec.margin, spec.per_prompt, spec.clean or None)
    enough = spec.limit if all(value in (None, "") for value in later) else None
    refuse_repeated_prompts(form, sample, spec.reading, spec.label)
    watch = Watch(form, spec.reading, spec.label)
    groups, bad, count = _parse(spec, form, itertools.chain(sample, rows), enough, watch)
    if bad and spec.on_bad_row == "error":
        raise _all_bad(bad, count)
    shown = [row for _, row in sample if not isinstance(row, BadRow)]
    said = [describe(form, shown, groups, rows=count - len(bad), columns=spec.columns)]
    if not spec.clean.get("turns"):
        said += watch.said()
    if left_out:
        said.append(f"{left_out.total()} rows left out by {', '.join(left_out)}")
    if bad:
        said.append(f"{len(bad)} bad rows skipped ({bad[0].where}: {bad[0].what}{'; ...' if len(bad) > 1 else ''})")
    return Dataset(groups, "; ".join(said), form.kind, tuple(f"{b.where}: {b.what}" for b in bad))


def _parse(
    spec: DataSource, form: Format, rows: Iterable[Stepped], enough: int | None, watch: Watch
) -> tuple[list[Group], list[BadRow], int]:
    """Groups, bad rows, and how many rows were read; stops once there are `enough` groups."""
    groups: list[Group] = []
    bad: list[BadRow] = []
    count = 0
    for place, data in rows:
        if enough is not None and len(groups) >= enough:
            break
        count += 1
        try:
            groups += parse_row(spec, form, place, data, watch)
        except BadRow as error:
            bad.append(error)
    return groups, bad, count


def parse_row(spec: DataSource, form: Format, place: str, data: Mapping[str, Any] | BadRow, watch: Watch) -> list[Group]:
    """The groups of one row; raises BadRow, also for one that a step could not read."""
    if isinstance(data, BadRow):
        raise data
    groups = form.groups(Row(data, place, spec.reading))
    watch.see(place, data, groups)
    return groups


def _all_bad(bad: list[BadRow], count: int) -> UserError:
    """The first bad row's error, with how many more there are."""
    first = bad[0]
    if len(bad) == 1:
        return first
    others = ", ".join(b.where.split(",")[0] for b in bad[1:6])
    more = f"{len(bad)} of {count} rows are bad; the next: {others}{', ...' if len(bad) > 6 else ''}"
    return BadRow(first.what, where=first.where, why="; ".join(filter(None, [first.why, more])), fix=first.fix)


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
