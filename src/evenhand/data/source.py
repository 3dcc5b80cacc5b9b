"""What a `data:` entry of an experiment may say, checked before anything is read."""

from __future__ import annotations

import dataclasses
import math
from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.data.clean import check_options as check_clean
from evenhand.data.convert import CONVERSIONS
from evenhand.data.decode import check_encoding, check_regular
from evenhand.data.documents import Cutting
from evenhand.data.formats import FORMATS
from evenhand.data.readers import READERS, type_of
from evenhand.data.recipes import with_recipe
from evenhand.data.rows import Grades, RowReading, Style, Transcripts
from evenhand.data.steps import check_steps
from evenhand.errors import UserError, did_you_mean, one_of

DOCUMENTS = "documents"

_CHOICES: Mapping[str, Collection[str]] = {
    "on_bad_row": ("error", "skip"),
    "style": ("verbatim", "chat"),
    "transcripts": ("turns", "verbatim"),
    "grades": ("use", "ignore"),
    "use": tuple(CONVERSIONS),
    "file_type": tuple(READERS),
    "format": ChainMap(FORMATS, {DOCUMENTS: None}),  # type: ignore[arg-type]  # read only
}
_OF_A_MIXTURE: tuple[tuple[str, Any, str], ...] = (
    ("local", Mapping, "a mapping of part to path"),
    ("temperature", (int, float), "a number"),
    ("seed", int, "a whole number"),
)
_TYPES: Mapping[str, tuple[Any, str]] = {
    "shuffle_seed": (int, "a whole number"),
    "opening_words": (int, "a whole number"),
    "opening_sentences": (int, "a whole number"),
    "columns": (Mapping, "a mapping of field to column, such as {prompt: question}"),
    "streaming": (bool, "true or false"),
    "keep": (list, "a list of column names"),
    "steps": (list, "a list of steps"),
    "clean": (Mapping, "a mapping such as {duplicates: exact}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """One source of groups.

    What is done to its rows, in this order: `steps`, the format, `use`, `margin`, `per_prompt`, `clean`, `shuffle_seed`, `limit`.
    """

    path: tuple[str, ...] = ()
    """A file, a list of files, or a folder of `datasets`."""
    name: str = ""
    """A data set of the Hub."""
    config: str = ""
    """Its configuration."""
    split: str = ""
    """Its split."""
    revision: str = ""
    """Its revision."""
    files: str = ""
    """Which of its files, as a pattern."""
    streaming: bool = False
    """Whether rows are read as they come rather than downloaded first."""
    file_type: str = ""
    """json, csv, parquet, text ...; by default what the name says."""
    encoding: str = "utf-8"
    """Of text files."""
    field: str = ""
    """The list in a JSON object."""
    format: str = ""
    """How rows are read; by default what their columns say."""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Field to column, such as {prompt: question}."""
    style: Style = ""
    """verbatim text, or chat turns."""
    wrap: str = ""
    """Text around a prompt, with {prompt} in it."""
    transcripts: Transcripts = "turns"
    """Whether texts with speakers in them are read as turns."""
    grades: Grades = "use"
    """Whether ratings beside answers are used."""
    keep: tuple[str, ...] | None = None
    """Columns that are kept for rewards and judges."""
    on_bad_row: str = "error"
    """error, or skip (counted and said)."""
    separator: str = ""
    """What parts running text."""
    opening_words: int = 0
    """Words of running text that become the prompt."""
    opening_sentences: int = 0
    """Sentences of running text that become the prompt."""
    steps: tuple[Mapping[str, Any], ...] = ()
    """What is done to rows before they are read: docs/data.md."""
    use: str = ""
    """What is made of the rows: prompts, demonstrations, binary or pairs."""
    margin: float | None = None
    """Least gap of scores between two answers of a pair."""
    per_prompt: int | None = None
    """Groups of one prompt at most."""
    clean: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is taken out: docs/data.md."""
    shuffle_seed: int | None = None
    """Draws the order of rows."""
    limit: int | None = None
    """Groups at most."""

    @property
    def reading(self) -> RowReading:
        return RowReading(
            columns=self.columns,
            style=self.style,
            wrap=self.wrap,
            transcripts=self.transcripts,
            grades=self.grades,
            keep=self.keep,
        )

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
    if not isinstance(source, str | Mapping):
        raise UserError(f"expected a path, a name or a mapping, found {source!r}", where=where, fix="path: FILE, or name: NAME")
    named = {"path": source} if isinstance(source, str) else source
    given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    _check_keys(given, where)
    paths = given.pop("path", ())
    paths = tuple(str(Path(p).expanduser()) for p in ((paths,) if isinstance(paths, str) else paths))
    if isinstance(source, str) and not Path(paths[0]).exists() and _is_hub_name(source):
        paths, given = (), {**given, "name": source}
    if bool(paths) == bool(given.get("name")):
        raise UserError("exactly one of path and name is needed", where=where, fix="path: FILE, or name: a name of the Hub")
    for path in paths:
        _must_exist(Path(path), where)
    check_steps(given.get("steps", ()), f"{where}.steps")
    check_clean(given.get("clean", {}), f"{where}.clean")
    lists: dict[str, Any] = {key: tuple(given.pop(key)) for key in ("keep", "steps") if key in given}
    made = DataSource(path=paths, **lists, **given)
    _refuse_idle(made, given, where)
    return made


def check_source(source: Mapping[str, Any] | str, *, where: str = "data", also: tuple[str, ...] = ()) -> None:
    """Raises UserError for what can be seen of a source before anything is read: unknown keys, values of the wrong kind.

    `also` are keys that it may have had beside those of a source: of a part of a mixture.
    """
    given = {} if isinstance(source, str) else with_recipe(source, where=where)
    if "mix" not in given:
        return _check_keys({key: value for key, value in given.items() if value is not None}, where, also)
    for index, part in enumerate(parse_mixture(given, where=where).sources):
        check_source(part, where=f"{where}.mix[{index}]", also=("part", "weight", "cap"))
    return None


def _check_keys(given: Mapping[str, Any], where: str, also: tuple[str, ...] = ()) -> None:
    known = [f.name for f in dataclasses.fields(DataSource)]
    for key, value in given.items():
        if key not in known:
            raise UserError(f"unknown key '{key}'", where=where, fix=did_you_mean(str(key), [*known, *also]))
        _check(key, value, f"{where}.{key}")


_OF_THE_HUB = ("config", "revision", "files", "streaming")
_OF_TEXT = ("separator", "opening_words", "opening_sentences")


def is_text(spec: DataSource) -> bool:
    """Whether the source is running text rather than rows."""
    if spec.format:
        return spec.format == DOCUMENTS
    return bool(spec.path) and (spec.file_type or type_of(Path(spec.path[0]))) == "text"


def _refuse_idle(spec: DataSource, given: Mapping[str, Any], where: str) -> None:
    """Raises UserError for a key that could do nothing here: data that was not meant would be read without a word."""
    files = spec.path and not any(Path(path).is_dir() for path in spec.path)
    idle = dict.fromkeys(_OF_THE_HUB, "data sets of the Hub") if spec.path else {}
    if files:
        idle["split"] = "data sets of the Hub and folders of datasets"
    if any(given.get(key) for key in _OF_TEXT) and not is_text(spec):
        idle |= dict.fromkeys(_OF_TEXT, "running text (format: documents)")
    if files and spec.field and not any((spec.file_type or type_of(Path(path))) == "json" for path in spec.path):
        idle["field"] = ".json files"
    for key, of in idle.items():
        if given.get(key):
            raise UserError(f"'{key}' has no effect here: it is for {of}", where=f"{where}.{key}", fix="leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Several sources as one (see `mix.py`). Per source: `name` (of the part), `weight`, `cap`; all else is its own.

    `local` maps a part's name to a path that takes the place of its Hub name.
    """

    sources: tuple[Mapping[str, Any], ...]
    """Several sources as one: a list, each a source of its own with `part`, `weight` and `cap` beside its keys."""
    names: tuple[str, ...]
    """Of each part (`part`): by default its recipe's, its Hub name or its file's."""
    weights: tuple[float | None, ...]
    """Of each part (`weight`): its share before `temperature`; by default its size."""
    caps: tuple[int | None, ...]
    """Of each part (`cap`): rows at most."""
    size: int | None = None
    """Rows of the mixture."""
    temperature: float = 1.0
    """Above 1 makes small parts larger: shares go with size ** (1 / temperature)."""
    seed: int = 0
    """Draws the rows."""


def parse_mixture(source: Mapping[str, Any], *, where: str = "data") -> Mixture:
    """`{mix: [source, ...], size, temperature, seed, local}`; each source may also have `part`, `weight` and `cap`."""
    known = ("mix", "size", "temperature", "seed", "local")
    for key in source:
        one_of("key", key, known, where=where)
    parts, local = source["mix"], source.get("local") or {}
    for key, kind, phrase in _OF_A_MIXTURE:
        _check_kind(source.get(key), kind, phrase, f"{where}.{key}")
    _check_count(source.get("size"), f"{where}.size")
    if not isinstance(parts, list | tuple) or not parts or not all(isinstance(part, str | Mapping) for part in parts):
        raise UserError("expected a list of sources", where=f"{where}.mix", fix="mix: [{recipe: hh_rlhf}, {path: mine.jsonl}]")
    parts = [{"path": part} if isinstance(part, str) else dict(part) for part in parts]
    names = [str(p.pop("part", "") or p.get("recipe") or p.get("name") or _stem(p.get("path"))) for p in parts]
    for name in local:
        if name not in names:
            raise UserError(f"no part '{name}'", where=f"{where}.local", fix=did_you_mean(name, names))
    parts = [{**p, **({"path": local[name]} if name in local else {})} for p, name in zip(parts, names, strict=True)]
    for index, part in enumerate(parts):
        _check_number(part.get("weight"), f"{where}.mix[{index}].weight")
        _check_count(part.get("cap"), f"{where}.mix[{index}].cap")
    return Mixture(
        weights=tuple(p.pop("weight", None) for p in parts),
        caps=tuple(p.pop("cap", None) for p in parts),
        sources=tuple(parts),
        names=tuple(names),
        **{key: source[key] for key in ("size", "temperature", "seed") if source.get(key) is not None},
    )


def _stem(path: Any) -> str:
    first = path[0] if isinstance(path, list | tuple) and path else path
    return Path(str(first)).name.split(".")[0]


def _check(key: str, value: Any, where: str) -> None:
    if key == "path":
        paths = [value] if isinstance(value, str) else value
        if not isinstance(paths, list | tuple) or not paths or not all(isinstance(path, str) and path for path in paths):
            raise UserError(f"expected a path or a list of paths, found {value!r}", where=where)
        return
    if key in ("limit", "per_prompt", "margin"):
        (_check_number if key == "margin" else _check_count)(value, where)
        return
    _check_kind(value, *_TYPES.get(key, (str, "text")), where)
    if key in ("columns", "keep"):
        for name in value.values() if key == "columns" else value:
            _check_kind(name, str, "the name of a column", f"{where}, {name!r}")
    if key == "columns":
        fields = {field for each in FORMATS.values() for field in (*each.fields, *each.optional)}
        for name in value:
            if name not in fields:
                raise UserError(f"no format has a field '{name}'", where=where, fix=did_you_mean(str(name), fields))
    if key == "encoding":
        check_encoding(value, where)
    if key in _CHOICES and value not in _CHOICES[key]:
        raise UserError(f"unknown value '{value}'", where=where, fix=did_you_mean(value, _CHOICES[key]))
    if key == "wrap" and "{prompt}" not in value:
        raise UserError("the wrap has no {prompt} in it", where=where, fix='for example "Question: {prompt}\\nAnswer:"')


def _check_kind(value: Any, kind: Any, phrase: str, where: str) -> None:
    """Raises UserError unless a value that is there is of its kind; true and false are no numbers."""
    if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise UserError(f"expected {phrase}, found {value!r}", where=where)


def _check_count(value: Any, where: str) -> None:
    """Raises UserError unless a number of groups that is there is 1 or more."""
    _check_kind(value, int, "a whole number", where)
    if value is not None and value < 1:
        raise UserError(f"{value} groups are no data", where=where, fix="use 1 or more, or remove the key")


def _check_number(value: Any, where: str) -> None:
    """Raises UserError unless a number that is there is finite."""
    _check_kind(value, int | float, "a number", where)
    if value is not None and not math.isfinite(value):
        raise UserError(f"expected a number, found {value}", where=where, fix="use a finite one, or remove the key")


def _is_hub_name(text: str) -> bool:
    """ORG/NAME without a file's ending; anything else is meant as a path."""
    parts = text.split("/")
    return len(parts) == 2 and all(parts) and not text.startswith((".", "~")) and "." not in parts[1][-8:]


def _must_exist(path: Path, where: str) -> None:
    if path.exists():
        return check_regular(path)
    near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
    hint = near if near.startswith("did you") else "check the path (it is taken from the folder where the command runs)"
    raise UserError(f"no such file: {path}", where=where, fix=hint)
