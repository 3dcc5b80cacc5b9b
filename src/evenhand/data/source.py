"""What a `data:` entry of an experiment may say, checked before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.data.convert import CONVERSIONS
from evenhand.data.documents import Cutting
from evenhand.data.formats import FORMATS
from evenhand.data.readers import READERS
from evenhand.data.rows import Reading
from evenhand.errors import UserError, did_you_mean

DOCUMENTS = "documents"

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "on_bad_row": ("error", "skip"),
    "style": ("verbatim", "chat"),
    "transcripts": ("turns", "verbatim"),
    "grades": ("use", "ignore"),
    "use": tuple(CONVERSIONS),
    "file_type": tuple(READERS),
    "format": (*FORMATS, DOCUMENTS),
}
_TYPES: Mapping[str, tuple[type, str]] = {
    "limit": (int, "a whole number"),
    "shuffle_seed": (int, "a whole number"),
    "opening_words": (int, "a whole number"),
    "opening_sentences": (int, "a whole number"),
    "columns": (Mapping, "a mapping of field to column, such as {prompt: question}"),
    "streaming": (bool, "true or false"),
    "keep": (list, "a list of column names"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """One source of groups.

    Where: `path` (a file, a list of files, or a folder of `datasets`) or `name` (of the Hub) with `config`, `split`,
    `revision`, `streaming`. How it is read: `file_type`, `encoding`, `field` (the list in a JSON object), `format` and
    `columns` (else detected), `style`, `wrap`, `transcripts`, `grades`, `keep` (see `Reading`), `on_bad_row` (error or
    skip). Text: `separator`, `opening_words`, `opening_sentences` (see `Cutting`). What is made of it: `use` (prompts,
    demonstrations, binary, pairs), then `shuffle_seed`, then `limit` (groups).
    """

    path: tuple[str, ...] = ()
    name: str = ""
    config: str = ""
    split: str = ""
    revision: str = ""
    streaming: bool = False
    file_type: str = ""
    encoding: str = "utf-8"
    field: str = ""
    format: str = ""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    style: str = ""
    wrap: str = ""
    transcripts: str = "turns"
    grades: str = "use"
    keep: tuple[str, ...] | None = None
    on_bad_row: str = "error"
    separator: str = ""
    opening_words: int = 0
    opening_sentences: int = 0
    use: str = ""
    shuffle_seed: int | None = None
    limit: int | None = None

    @property
    def reading(self) -> Reading:
        return Reading(
            columns=self.columns,
            style=self.style,
            wrap=self.wrap,
            transcripts=self.transcripts,
            grades=self.grades,
            keep=self.keep,
        )  # type: ignore[arg-type]  # the values were checked against _CHOICES

    @property
    def cutting(self) -> Cutting:
        return Cutting(separator=self.separator, words=self.opening_words, sentences=self.opening_sentences)

    @property
    def label(self) -> str:
        """A short name for messages."""
        return ", ".join(Path(p).name for p in self.path) or self.name


def parse_source(source: Mapping[str, Any] | str, *, where: str = "data") -> DataSource:
    """A source from an experiment file: a path or Hub name, or a mapping of the fields of `DataSource`.

    Raises UserError on an unknown key, a value of the wrong type, or when it names no place to read from.
    """
    given = {"path": source} if isinstance(source, str) else dict(source)
    known = [f.name for f in dataclasses.fields(DataSource)]
    for key, value in given.items():
        if key not in known:
            raise UserError(f"unknown key '{key}'", where=where, fix=did_you_mean(key, known))
        _check(key, value, f"{where}.{key}")
    paths = given.pop("path", ())
    paths = (paths,) if isinstance(paths, str) else tuple(paths)
    if isinstance(source, str) and not Path(source).exists() and _is_hub_name(source):
        paths, given = (), {**given, "name": source}
    if bool(paths) == bool(given.get("name")):
        raise UserError("exactly one of path and name is needed", where=where, fix="path: FILE, or name: a name of the Hub")
    for path in paths:
        _must_exist(Path(path), where)
    keep = given.pop("keep", None)
    return DataSource(path=paths, keep=None if keep is None else tuple(keep), **{k: v for k, v in given.items() if v is not None})


def _check(key: str, value: Any, where: str) -> None:
    if value is None:
        return
    if key == "path":
        if not (isinstance(value, str) or (isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value))):
            raise UserError(f"expected a path or a list of paths, found {value!r}", where=where)
        return
    kind, phrase = _TYPES.get(key, (str, "text"))
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"expected {phrase}, found {value!r}", where=where)
    if key in _CHOICES and value not in _CHOICES[key]:
        raise UserError(f"unknown value '{value}'", where=where, fix=did_you_mean(value, _CHOICES[key]))
    if key == "limit" and value < 1:
        raise UserError(f"{value} groups are no data", where=where, fix="use 1 or more, or remove the limit")
    if key == "wrap" and "{prompt}" not in value:
        raise UserError("the wrap has no {prompt} in it", where=where, fix='for example "Question: {prompt}\\nAnswer:"')


def _is_hub_name(text: str) -> bool:
    """ORG/NAME without a file's ending; anything else is meant as a path."""
    parts = text.split("/")
    return len(parts) == 2 and all(parts) and not text.startswith((".", "~")) and "." not in parts[1][-8:]


def _must_exist(path: Path, where: str) -> None:
    if path.exists():
        return
    near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
    hint = near if near.startswith("did you") else "check the path (it is taken from the folder where the command runs)"
    raise UserError(f"no such file: {path}", where=where, fix=hint)
